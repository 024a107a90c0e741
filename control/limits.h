/* Limits of the control API that trestle-cni holds its own input against, so that what it sends is never refused for its size. */
#ifndef CONTROL_LIMITS_H
#define CONTROL_LIMITS_H

/* Bytes of a CNI network's name and of a container id. With the interface name both become one file name, here (word for a daemon
 * that does not run) as in the result cache of every runtime, and 255 bytes is all that a file name can have. */
#define CONTROL_CNI_CONFIG_MAX 76
#define CONTROL_CNI_ID_MAX 156
#define CONTROL_CNI_PATH_MAX 4095
#define CONTROL_CNI_LABEL_MAX 512 /* bytes of a label, a name, an alias */
#define CONTROL_CNI_LABELS_MAX 64 /* of each */
#define CONTROL_CNI_IPS_MAX 16
#define CONTROL_CNI_ROUTES_MAX 64
#define CONTROL_NETWORK_NAME_MAX 63

#endif

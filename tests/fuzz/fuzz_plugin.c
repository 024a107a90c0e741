/* Bodies of the Docker plugin calls. The first byte picks the method, the rest is the body. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "plugin/plugin.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const paths[] = {
	"/Plugin.Activate",
	"/NetworkDriver.GetCapabilities",
	"/NetworkDriver.GwAllocCheck",
	"/NetworkDriver.AllocateNetwork",
	"/NetworkDriver.FreeNetwork",
	"/NetworkDriver.CreateNetwork",
	"/NetworkDriver.DeleteNetwork",
	"/NetworkDriver.CreateEndpoint",
	"/NetworkDriver.EndpointOperInfo",
	"/NetworkDriver.DeleteEndpoint",
	"/NetworkDriver.Join",
	"/NetworkDriver.Leave",
	"/NetworkDriver.ProgramExternalConnectivity",
	"/NetworkDriver.RevokeExternalConnectivity",
	"/NetworkDriver.DiscoverNew",
	"/NetworkDriver.DiscoverDelete",
	"/IpamDriver.GetCapabilities",
	"/IpamDriver.GetDefaultAddressSpaces",
	"/IpamDriver.RequestPool",
	"/IpamDriver.ReleasePool",
	"/IpamDriver.RequestAddress",
	"/IpamDriver.ReleaseAddress",
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct err err;
	int status;

	if (!size)
		return 0;
	err.text[0] = '\0';
	status = plugin_decode_only(paths[data[0] % (sizeof paths / sizeof *paths)], data + 1, size - 1, &err);
	/* A refusal has a status and a sentence; anything else was answered. */
	if (status != 0 && (status != 400 || !err.text[0]))
		abort();
	return 0;
}

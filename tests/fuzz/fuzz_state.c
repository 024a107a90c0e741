/* Shared and stored values (daemon/records.h). The first byte picks the decoder, the rest are the bytes. What decodes has one
 * form: it must encode to the same bytes, and what is shared must fit a gossip record. */
#include <stdlib.h>
#include <string.h>

#include "daemon/records.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int truth)
{
	if (!truth)
		abort();
}

static void check_refusal(const struct err *err)
{
	require((err->code == ERR_CORRUPT || err->code == ERR_VERSION) && err->text[0]);
}

#define TRY(type, max)                                                                                                           \
	static void try_##type(const uint8_t *bytes, size_t len)                                                                 \
	{                                                                                                                        \
		uint8_t again[max];                                                                                              \
		struct err err = {0};                                                                                            \
		struct type value;                                                                                               \
		if (type##_decode(bytes, len, &value, &err) < 0)                                                                 \
			check_refusal(&err);                                                                                     \
		else                                                                                                             \
			require(type##_encode(&value, again, sizeof(again)) == len && memcmp(again, bytes, len) == 0);           \
	}

TRY(network_def, GOSSIP_VALUE_MAX)
TRY(pool_def, GOSSIP_VALUE_MAX)
TRY(endpoint_record, GOSSIP_VALUE_MAX)
TRY(cluster_state, RECORD_MAX)
TRY(network_state, RECORD_MAX)
TRY(docker_network_state, RECORD_MAX)
TRY(pool_state, RECORD_MAX)
TRY(endpoint_state, RECORD_MAX)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const tries[])(const uint8_t *bytes, size_t len) = {try_network_def, try_pool_def, try_endpoint_record,
		try_cluster_state, try_network_state, try_docker_network_state, try_pool_state, try_endpoint_state};

	if (size)
		tries[data[0] % (sizeof(tries) / sizeof(tries[0]))](data + 1, size - 1);
	return 0;
}

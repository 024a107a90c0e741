/* What the libraries could do and the daemon does not: look up names, load code.
 *
 * Both would need, in a static program, the shared libraries of the very libc that it was built with. Libevent can resolve host
 * names (evutil.c), but the daemon's addresses are numbers; SQLite can load extensions, and nobody asks it to. The linker (--wrap
 * in the Makefile) leads their calls here, and what they would have pulled in stays out. */
#include <dlfcn.h>
#include <netdb.h>
#include <stddef.h>

int __wrap_getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **ret);
void __wrap_freeaddrinfo(struct addrinfo *list);
struct servent *__wrap_getservbyname(const char *name, const char *proto);
struct protoent *__wrap_getprotobynumber(int proto);
void *__wrap_dlopen(const char *file, int mode);
void *__wrap_dlsym(void *handle, const char *name);
char *__wrap_dlerror(void);
int __wrap_dlclose(void *handle);

int __wrap_getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **ret)
{
	(void)name, (void)service, (void)hints, (void)ret;
	return EAI_FAIL;
}

void __wrap_freeaddrinfo(struct addrinfo *list)
{
	(void)list;
}

struct servent *__wrap_getservbyname(const char *name, const char *proto)
{
	(void)name, (void)proto;
	return NULL;
}

struct protoent *__wrap_getprotobynumber(int proto)
{
	(void)proto;
	return NULL;
}

void *__wrap_dlopen(const char *file, int mode)
{
	(void)file, (void)mode;
	return NULL;
}

void *__wrap_dlsym(void *handle, const char *name)
{
	(void)handle, (void)name;
	return NULL;
}

char *__wrap_dlerror(void)
{
	return NULL;
}

int __wrap_dlclose(void *handle)
{
	(void)handle;
	return -1;
}

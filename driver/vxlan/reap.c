/* Deletion of marked links, and of everything.
 *
 * Deleting a link waits 16-20 ms for RCU, a whole group of links about as long as one. The lock is free during that wait, so a
 * thread of its own does it, and attaching goes on beside it. */
#include <errno.h>
#include <string.h>

#include "driver/vxlan/vxlan_internal.h"
#include "netlink/build.h"
#include "netlink/link.h"
#include "netlink/netns.h"

static int delete_group(struct nl_socket *s, struct err *err)
{
	struct nlb b;

	nl_link_del_group_request(&b, VX_GROUP_REAP);
	if (nl_transact(s, &b, err) < 0 && err->sys_errno != ENODEV) /* ENODEV: the group is empty */
		return err_prefix(err, "delete links that were taken down");
	return 0;
}

static void *reap_thread(void *arg)
{
	struct vx_reaper *r = arg;

	r->ret = delete_group(r->socket, &r->err);
	atomic_store(&r->finished, true);
	return NULL;
}

static int collect(struct vxlan *vx, struct err *err)
{
	struct vx_reaper *r = &vx->reaper;

	if (!r->running)
		return 0;
	pthread_join(r->thread, NULL);
	r->running = false;
	if (r->ret < 0 && err)
		*err = r->err;
	return r->ret;
}

void vx_reap_wait(struct vxlan *vx)
{
	struct err err;

	/* A failed deletion leaves the links where they are, and the next reap tries again and reports. */
	collect(vx, &err);
	vx_have_drain(vx, &err);
}

static int start(struct vxlan *vx, struct err *err)
{
	struct vx_reaper *r = &vx->reaper;
	int rc;

	if (!r->socket && nl_open(vx->routed ? -1 : vx->fabric_fd, NULL, 0, &r->socket, err) < 0)
		return -1;
	memset(&r->err, 0, sizeof(r->err));
	atomic_store(&r->finished, false);
	rc = pthread_create(&r->thread, NULL, reap_thread, r);
	if (rc)
		return err_sys(err, rc, "start the thread that deletes links");
	r->running = true;
	return 0;
}

int vx_reap(struct vxlan *vx, struct err *err)
{
	if (vx->reaper.running && !atomic_load(&vx->reaper.finished))
		return (int)vx->dying;
	if (collect(vx, err) < 0 || vx_have_drain(vx, err) < 0)
		return -1;
	if (vx->dying && start(vx, err) < 0)
		return -1;
	return (int)vx->dying;
}

void vx_reap_all(struct vxlan *vx)
{
	struct err err;

	vx->reap_now = false;
	vx_reap_wait(vx);
	if (vx->dying && (delete_group(vx->fabric, &err) < 0 || vx_have_drain(vx, &err) < 0))
		vx_fail(vx, &err);
}

/* Marks as many of our links as fit a plan, and says whether there were any. */
static bool mark_some(struct vxlan *vx)
{
	struct vx_have_link *l, *next;

	HASH_ITER(hh, vx->links, l, next)
	{
		bool ours = l->link.tagged || l->link.group == VX_GROUP_NEW;

		if (ours && l->link.group != VX_GROUP_REAP && !vx_plan_full(vx->plan))
			vx_plan_mark(vx->plan, &l->link);
	}
	return vx->plan->count > 0;
}

static int purge_links(struct vxlan *vx, struct err *err)
{
	vx->failures = 0;
	/* A device takes its rows along, with a notice for each: more than the buffer holds, perhaps. */
	while (!vx->failures && mark_some(vx)) {
		vx_apply(vx);
		if (vx->overrun && vx_have_dump(vx, err) < 0)
			return -1;
	}
	if (vx->failures) {
		if (err)
			*err = vx->failure;
		return -1;
	}
	return delete_group(vx->fabric, err);
}

/* The namespace goes only when nothing of anyone else is in it; `lo` is always there. */
static int purge_fabric(struct vxlan *vx, struct err *err)
{
	struct vx_have_link *l, *next;

	HASH_ITER(hh, vx->links, l, next)
	if (l->link.index != 1)
		return err_set(err, ERR_CONFLICT,
			"fabric namespace %s: link %s is not ours, so the namespace is left; delete it and run this again",
			vx->fabric_path, l->link.name);
	return netns_remove(vx->fabric_path, err);
}

int vx_purge(struct vxlan *vx, struct err *err)
{
	struct err own = {0};

	vx_reap_wait(vx);
	if (vx_have_dump(vx, err) < 0 || purge_links(vx, &own) < 0 || vx_have_drain(vx, &own) < 0 ||
		(vx->routed ? nat_purge(vx->nat, &own) : guard_purge(vx->guard, &own)) < 0 ||
		(vx->routed ? vx_routed_purge(vx, &own) : purge_fabric(vx, &own)) < 0) {
		if (err && own.code)
			*err = own;
		return -1;
	}
	return 0;
}

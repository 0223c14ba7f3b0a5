/*
 * What lhsmtool-s3 takes from liblustreapi's C ABI (x86-64 and aarch64 Linux, little-endian).
 *
 * Declarations only, written from the sizes and offsets that a program compiled against Lustre 2.17.0
 * prints (tests/data/abi.json), so that a build needs neither Lustre's headers nor its library: the
 * library is opened at run time. A test compares the layout of each struct with those facts.
 */
#include <stdbool.h>
#include <stdint.h>

#define LHSM_PACKED __attribute__((packed))

/* --- the kernel's pipe ------------------------------------------------------------------------- */

struct kuc_hdr {
	uint16_t kuc_magic;
	uint8_t kuc_transport;
	uint8_t kuc_flags;
	uint16_t kuc_msgtype;
	uint16_t kuc_msglen; /* header included */
} __attribute__((aligned(8)));

#define KUC_MAGIC 0x191C
#define KUC_TRANSPORT_GENERIC 1
#define KUC_TRANSPORT_HSM 2
#define KUC_MSG_SHUTDOWN 1
#define KUC_GRP_HSM 2
#define HMT_ACTION_LIST 100
#define HAL_VERSION 1

/* Argument of LL_IOC_HSM_CT_START; lk_data (the archive ids) follows. */
struct lustre_kernelcomm {
	uint32_t lk_wfd;
	uint32_t lk_rfd;
	uint32_t lk_uid;
	uint32_t lk_group;
	uint32_t lk_data_count;
	uint32_t lk_flags;
	uint32_t lk_data[];
} LHSM_PACKED;

#define LK_FLG_STOP 1u
#define LK_FLG_DATANR 2u

/* --- actions ----------------------------------------------------------------------------------- */

struct lu_fid {
	uint64_t f_seq;
	uint32_t f_oid;
	uint32_t f_ver;
} LHSM_PACKED;

struct hsm_extent {
	uint64_t offset;
	uint64_t length; /* all ones: to the end of the file */
} LHSM_PACKED;

struct hsm_action_list {
	uint32_t hal_version;
	uint32_t hal_count;
	uint64_t hal_compound_id;
	uint64_t hal_flags;
	uint32_t hal_archive_id;
	uint32_t padding1;
	char hal_fsname[]; /* NUL-terminated, padded to 8; the items follow */
} LHSM_PACKED;

struct hsm_action_item {
	uint32_t hai_len; /* data included, without the padding to 8 */
	uint32_t hai_action;
	struct lu_fid hai_fid;
	struct lu_fid hai_dfid;
	struct hsm_extent hai_extent;
	uint64_t hai_cookie;
	uint64_t hai_gid;
	char hai_data[];
} LHSM_PACKED;

#define HSMA_ARCHIVE 20
#define HSMA_RESTORE 21
#define HSMA_REMOVE 22
#define HSMA_CANCEL 23
#define HSM_REQ_BLOCKING 4
#define HP_FLAG_COMPLETED 1
#define HP_FLAG_RETRY 2

/* Argument of LL_IOC_HSM_PROGRESS. */
struct hsm_progress {
	struct lu_fid hp_fid;
	uint64_t hp_cookie;
	struct hsm_extent hp_extent;
	uint16_t hp_flags;
	uint16_t hp_errval;
	uint32_t padding;
};

/* What llapi_hsm_request asks the coordinator for; the items follow. */
struct hsm_request {
	uint32_t hr_action;
	uint32_t hr_archive_id;
	uint64_t hr_flags;
	uint32_t hr_itemcount;
	uint32_t hr_data_len;
};

struct hsm_user_item {
	struct lu_fid hui_fid;
	struct hsm_extent hui_extent;
} LHSM_PACKED;

struct hsm_user_request {
	struct hsm_request hur_request;
	struct hsm_user_item hur_user_item[];
} LHSM_PACKED;

#define HUA_NONE 1
#define HUA_ARCHIVE 10
#define HUA_RESTORE 11
#define HUA_RELEASE 12
#define HUA_REMOVE 13
#define HUA_CANCEL 14

/* What llapi_hsm_current_action fills in. */
struct hsm_current_action {
	uint32_t hca_state;
	uint32_t hca_action;
	struct hsm_extent hca_location;
};

#define LL_IOC_HSM_CT_START 0x401866d5u
#define LL_IOC_HSM_PROGRESS 0x401866d8u

/* What llapi_hsm_state_get fills in. */
struct hsm_user_state {
	uint32_t hus_states;
	uint32_t hus_archive_id;
	uint32_t hus_in_progress_state;
	uint32_t hus_in_progress_action;
	struct hsm_extent hus_in_progress_location;
	char hus_extended_info[];
};

#define HS_EXISTS 0x1
#define HS_DIRTY 0x2
#define HS_RELEASED 0x4
#define HS_ARCHIVED 0x8
#define HS_NOARCHIVE 0x20
#define HS_LOST 0x40

/* --- changelogs --------------------------------------------------------------------------------- */

/* Extensions follow in the order of their flags, then the name. As lustre_user.h of 2.10 and later has it. */
struct changelog_rec {
	uint16_t cr_namelen; /* of a rename: both names with the NUL between */
	uint16_t cr_flags;
	uint32_t cr_type;
	uint64_t cr_index;
	uint64_t cr_prev;
	uint64_t cr_time;
	struct lu_fid cr_tfid;
	struct lu_fid cr_pfid;
};

#define CLF_VERSION 0x1000
#define CLF_RENAME 0x2000 /* two FIDs */
#define CLF_JOBID 0x4000 /* 32 bytes */
#define CLF_EXTRA_FLAGS 0x8000
#define CLF_UNLINK_LAST 1

/* --- functions --------------------------------------------------------------------------------- */

struct hsm_copytool_private;
struct hsm_copyaction_private;

/* All return 0 (or what they give) on success and -errno on failure; none sets errno. */
int llapi_hsm_copytool_register(struct hsm_copytool_private **priv, const char *mnt,
				int archive_count, int *archives, int rfd_flags);
int llapi_hsm_copytool_unregister(struct hsm_copytool_private **priv);
int llapi_hsm_copytool_get_fd(struct hsm_copytool_private *ct);
int llapi_hsm_action_begin(struct hsm_copyaction_private **phcp,
			   const struct hsm_copytool_private *ct,
			   const struct hsm_action_item *hai, int restore_mdt_index,
			   int restore_open_flags, bool is_error);
int llapi_hsm_action_end(struct hsm_copyaction_private **phcp, const struct hsm_extent *he,
			 int hp_flags, int errval);
int llapi_hsm_action_get_fd(const struct hsm_copyaction_private *hcp);
int llapi_search_fsname(const char *pathname, char *fsname);
int llapi_fid2path(const char *device, const char *fidstr, char *path, int pathlen,
		   long long *recno, int *linkno);
int llapi_hsm_state_get(const char *path, struct hsm_user_state *hus);
int llapi_hsm_state_set(const char *path, uint64_t setmask, uint64_t clearmask, uint32_t archive_id);
/* The rest is used where the library has it. */
int llapi_get_mdt_index_by_fid(int fd, const struct lu_fid *fid, int *mdt_index);
int llapi_getname(const char *path, char *buf, __SIZE_TYPE__ size);
void llapi_msg_set_level(int level);
int llapi_hsm_request(const char *path, const struct hsm_user_request *request);
int llapi_hsm_current_action(const char *path, struct hsm_current_action *hca);
int llapi_get_obd_count(char *mnt, int *count, int is_mdt);
int llapi_create_volatile_idx(const char *directory, int mdt_idx, int open_flags);
int llapi_fd2fid(int fd, struct lu_fid *fid);
int llapi_path2fid(const char *path, struct lu_fid *fid);
int llapi_get_data_version(int fd, uint64_t *data_version, uint64_t flags);
/* The system's struct stat. */
struct stat;
int llapi_hsm_import(const char *dst, int archive, const struct stat *st, unsigned long long stripe_size,
		     int stripe_offset, int stripe_count, int stripe_pattern, char *pool_name,
		     struct lu_fid *newfid);

int llapi_changelog_start(void **priv, int flags, const char *mdtname, long long startrec);
int llapi_changelog_recv(void *priv, struct changelog_rec **rech); /* 1: no more */
int llapi_changelog_free(struct changelog_rec **rech);
int llapi_changelog_fini(void **priv);
int llapi_changelog_clear(const char *mdtname, const char *idstr, long long endrec);

#define LL_DV_RD_FLUSH 1

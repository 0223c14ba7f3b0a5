#[repr(C)]
#[derive(Default)]
pub struct __IncompleteArrayField<T>(::std::marker::PhantomData<T>, [T; 0]);
impl<T> __IncompleteArrayField<T> {
    #[inline]
    pub const fn new() -> Self {
        __IncompleteArrayField(::std::marker::PhantomData, [])
    }
    #[inline]
    pub fn as_ptr(&self) -> *const T {
        self as *const _ as *const T
    }
    #[inline]
    pub fn as_mut_ptr(&mut self) -> *mut T {
        self as *mut _ as *mut T
    }
    #[inline]
    pub unsafe fn as_slice(&self, len: usize) -> &[T] {
        ::std::slice::from_raw_parts(self.as_ptr(), len)
    }
    #[inline]
    pub unsafe fn as_mut_slice(&mut self, len: usize) -> &mut [T] {
        ::std::slice::from_raw_parts_mut(self.as_mut_ptr(), len)
    }
}
impl<T> ::std::fmt::Debug for __IncompleteArrayField<T> {
    fn fmt(&self, fmt: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
        fmt.write_str("__IncompleteArrayField")
    }
}
pub const KUC_MAGIC: u32 = 6428;
pub const KUC_TRANSPORT_GENERIC: u32 = 1;
pub const KUC_TRANSPORT_HSM: u32 = 2;
pub const KUC_MSG_SHUTDOWN: u32 = 1;
pub const KUC_GRP_HSM: u32 = 2;
pub const HMT_ACTION_LIST: u32 = 100;
pub const HAL_VERSION: u32 = 1;
pub const LK_FLG_STOP: u32 = 1;
pub const LK_FLG_DATANR: u32 = 2;
pub const HSMA_ARCHIVE: u32 = 20;
pub const HSMA_RESTORE: u32 = 21;
pub const HSMA_REMOVE: u32 = 22;
pub const HSMA_CANCEL: u32 = 23;
pub const HSM_REQ_BLOCKING: u32 = 4;
pub const HP_FLAG_COMPLETED: u32 = 1;
pub const HP_FLAG_RETRY: u32 = 2;
pub const HUA_NONE: u32 = 1;
pub const HUA_ARCHIVE: u32 = 10;
pub const HUA_RESTORE: u32 = 11;
pub const HUA_RELEASE: u32 = 12;
pub const HUA_REMOVE: u32 = 13;
pub const HUA_CANCEL: u32 = 14;
pub const LL_IOC_HSM_CT_START: u32 = 1075341013;
pub const LL_IOC_HSM_PROGRESS: u32 = 1075341016;
pub const HS_EXISTS: u32 = 1;
pub const HS_DIRTY: u32 = 2;
pub const HS_RELEASED: u32 = 4;
pub const HS_ARCHIVED: u32 = 8;
pub const HS_NOARCHIVE: u32 = 32;
pub const HS_LOST: u32 = 64;
pub const CLF_VERSION: u32 = 4096;
pub const CLF_RENAME: u32 = 8192;
pub const CLF_JOBID: u32 = 16384;
pub const CLF_EXTRA_FLAGS: u32 = 32768;
pub const CLF_UNLINK_LAST: u32 = 1;
pub const LL_DV_RD_FLUSH: u32 = 1;
#[repr(C)]
#[repr(align(8))]
#[derive(Debug, Default, Copy, Clone)]
pub struct kuc_hdr {
    pub kuc_magic: u16,
    pub kuc_transport: u8,
    pub kuc_flags: u8,
    pub kuc_msgtype: u16,
    pub kuc_msglen: u16,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of kuc_hdr"][::std::mem::size_of::<kuc_hdr>() - 8usize];
    ["Alignment of kuc_hdr"][::std::mem::align_of::<kuc_hdr>() - 8usize];
    [
        "Offset of field: kuc_hdr::kuc_magic",
    ][::std::mem::offset_of!(kuc_hdr, kuc_magic) - 0usize];
    [
        "Offset of field: kuc_hdr::kuc_transport",
    ][::std::mem::offset_of!(kuc_hdr, kuc_transport) - 2usize];
    [
        "Offset of field: kuc_hdr::kuc_flags",
    ][::std::mem::offset_of!(kuc_hdr, kuc_flags) - 3usize];
    [
        "Offset of field: kuc_hdr::kuc_msgtype",
    ][::std::mem::offset_of!(kuc_hdr, kuc_msgtype) - 4usize];
    [
        "Offset of field: kuc_hdr::kuc_msglen",
    ][::std::mem::offset_of!(kuc_hdr, kuc_msglen) - 6usize];
};
#[repr(C, packed)]
pub struct lustre_kernelcomm {
    pub lk_wfd: u32,
    pub lk_rfd: u32,
    pub lk_uid: u32,
    pub lk_group: u32,
    pub lk_data_count: u32,
    pub lk_flags: u32,
    pub lk_data: __IncompleteArrayField<u32>,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of lustre_kernelcomm"][::std::mem::size_of::<lustre_kernelcomm>() - 24usize];
    [
        "Alignment of lustre_kernelcomm",
    ][::std::mem::align_of::<lustre_kernelcomm>() - 1usize];
    [
        "Offset of field: lustre_kernelcomm::lk_wfd",
    ][::std::mem::offset_of!(lustre_kernelcomm, lk_wfd) - 0usize];
    [
        "Offset of field: lustre_kernelcomm::lk_rfd",
    ][::std::mem::offset_of!(lustre_kernelcomm, lk_rfd) - 4usize];
    [
        "Offset of field: lustre_kernelcomm::lk_uid",
    ][::std::mem::offset_of!(lustre_kernelcomm, lk_uid) - 8usize];
    [
        "Offset of field: lustre_kernelcomm::lk_group",
    ][::std::mem::offset_of!(lustre_kernelcomm, lk_group) - 12usize];
    [
        "Offset of field: lustre_kernelcomm::lk_data_count",
    ][::std::mem::offset_of!(lustre_kernelcomm, lk_data_count) - 16usize];
    [
        "Offset of field: lustre_kernelcomm::lk_flags",
    ][::std::mem::offset_of!(lustre_kernelcomm, lk_flags) - 20usize];
    [
        "Offset of field: lustre_kernelcomm::lk_data",
    ][::std::mem::offset_of!(lustre_kernelcomm, lk_data) - 24usize];
};
impl Default for lustre_kernelcomm {
    fn default() -> Self {
        let mut s = ::std::mem::MaybeUninit::<Self>::uninit();
        unsafe {
            ::std::ptr::write_bytes(s.as_mut_ptr(), 0, 1);
            s.assume_init()
        }
    }
}
#[repr(C, packed)]
#[derive(Debug, Default, Copy, Clone)]
pub struct lu_fid {
    pub f_seq: u64,
    pub f_oid: u32,
    pub f_ver: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of lu_fid"][::std::mem::size_of::<lu_fid>() - 16usize];
    ["Alignment of lu_fid"][::std::mem::align_of::<lu_fid>() - 1usize];
    ["Offset of field: lu_fid::f_seq"][::std::mem::offset_of!(lu_fid, f_seq) - 0usize];
    ["Offset of field: lu_fid::f_oid"][::std::mem::offset_of!(lu_fid, f_oid) - 8usize];
    ["Offset of field: lu_fid::f_ver"][::std::mem::offset_of!(lu_fid, f_ver) - 12usize];
};
#[repr(C, packed)]
#[derive(Debug, Default, Copy, Clone)]
pub struct hsm_extent {
    pub offset: u64,
    pub length: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of hsm_extent"][::std::mem::size_of::<hsm_extent>() - 16usize];
    ["Alignment of hsm_extent"][::std::mem::align_of::<hsm_extent>() - 1usize];
    [
        "Offset of field: hsm_extent::offset",
    ][::std::mem::offset_of!(hsm_extent, offset) - 0usize];
    [
        "Offset of field: hsm_extent::length",
    ][::std::mem::offset_of!(hsm_extent, length) - 8usize];
};
#[repr(C, packed)]
pub struct hsm_action_list {
    pub hal_version: u32,
    pub hal_count: u32,
    pub hal_compound_id: u64,
    pub hal_flags: u64,
    pub hal_archive_id: u32,
    pub padding1: u32,
    pub hal_fsname: __IncompleteArrayField<::std::os::raw::c_char>,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of hsm_action_list"][::std::mem::size_of::<hsm_action_list>() - 32usize];
    ["Alignment of hsm_action_list"][::std::mem::align_of::<hsm_action_list>() - 1usize];
    [
        "Offset of field: hsm_action_list::hal_version",
    ][::std::mem::offset_of!(hsm_action_list, hal_version) - 0usize];
    [
        "Offset of field: hsm_action_list::hal_count",
    ][::std::mem::offset_of!(hsm_action_list, hal_count) - 4usize];
    [
        "Offset of field: hsm_action_list::hal_compound_id",
    ][::std::mem::offset_of!(hsm_action_list, hal_compound_id) - 8usize];
    [
        "Offset of field: hsm_action_list::hal_flags",
    ][::std::mem::offset_of!(hsm_action_list, hal_flags) - 16usize];
    [
        "Offset of field: hsm_action_list::hal_archive_id",
    ][::std::mem::offset_of!(hsm_action_list, hal_archive_id) - 24usize];
    [
        "Offset of field: hsm_action_list::padding1",
    ][::std::mem::offset_of!(hsm_action_list, padding1) - 28usize];
    [
        "Offset of field: hsm_action_list::hal_fsname",
    ][::std::mem::offset_of!(hsm_action_list, hal_fsname) - 32usize];
};
impl Default for hsm_action_list {
    fn default() -> Self {
        let mut s = ::std::mem::MaybeUninit::<Self>::uninit();
        unsafe {
            ::std::ptr::write_bytes(s.as_mut_ptr(), 0, 1);
            s.assume_init()
        }
    }
}
#[repr(C, packed)]
pub struct hsm_action_item {
    pub hai_len: u32,
    pub hai_action: u32,
    pub hai_fid: lu_fid,
    pub hai_dfid: lu_fid,
    pub hai_extent: hsm_extent,
    pub hai_cookie: u64,
    pub hai_gid: u64,
    pub hai_data: __IncompleteArrayField<::std::os::raw::c_char>,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of hsm_action_item"][::std::mem::size_of::<hsm_action_item>() - 72usize];
    ["Alignment of hsm_action_item"][::std::mem::align_of::<hsm_action_item>() - 1usize];
    [
        "Offset of field: hsm_action_item::hai_len",
    ][::std::mem::offset_of!(hsm_action_item, hai_len) - 0usize];
    [
        "Offset of field: hsm_action_item::hai_action",
    ][::std::mem::offset_of!(hsm_action_item, hai_action) - 4usize];
    [
        "Offset of field: hsm_action_item::hai_fid",
    ][::std::mem::offset_of!(hsm_action_item, hai_fid) - 8usize];
    [
        "Offset of field: hsm_action_item::hai_dfid",
    ][::std::mem::offset_of!(hsm_action_item, hai_dfid) - 24usize];
    [
        "Offset of field: hsm_action_item::hai_extent",
    ][::std::mem::offset_of!(hsm_action_item, hai_extent) - 40usize];
    [
        "Offset of field: hsm_action_item::hai_cookie",
    ][::std::mem::offset_of!(hsm_action_item, hai_cookie) - 56usize];
    [
        "Offset of field: hsm_action_item::hai_gid",
    ][::std::mem::offset_of!(hsm_action_item, hai_gid) - 64usize];
    [
        "Offset of field: hsm_action_item::hai_data",
    ][::std::mem::offset_of!(hsm_action_item, hai_data) - 72usize];
};
impl Default for hsm_action_item {
    fn default() -> Self {
        let mut s = ::std::mem::MaybeUninit::<Self>::uninit();
        unsafe {
            ::std::ptr::write_bytes(s.as_mut_ptr(), 0, 1);
            s.assume_init()
        }
    }
}
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct hsm_progress {
    pub hp_fid: lu_fid,
    pub hp_cookie: u64,
    pub hp_extent: hsm_extent,
    pub hp_flags: u16,
    pub hp_errval: u16,
    pub padding: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of hsm_progress"][::std::mem::size_of::<hsm_progress>() - 48usize];
    ["Alignment of hsm_progress"][::std::mem::align_of::<hsm_progress>() - 8usize];
    [
        "Offset of field: hsm_progress::hp_fid",
    ][::std::mem::offset_of!(hsm_progress, hp_fid) - 0usize];
    [
        "Offset of field: hsm_progress::hp_cookie",
    ][::std::mem::offset_of!(hsm_progress, hp_cookie) - 16usize];
    [
        "Offset of field: hsm_progress::hp_extent",
    ][::std::mem::offset_of!(hsm_progress, hp_extent) - 24usize];
    [
        "Offset of field: hsm_progress::hp_flags",
    ][::std::mem::offset_of!(hsm_progress, hp_flags) - 40usize];
    [
        "Offset of field: hsm_progress::hp_errval",
    ][::std::mem::offset_of!(hsm_progress, hp_errval) - 42usize];
    [
        "Offset of field: hsm_progress::padding",
    ][::std::mem::offset_of!(hsm_progress, padding) - 44usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct hsm_request {
    pub hr_action: u32,
    pub hr_archive_id: u32,
    pub hr_flags: u64,
    pub hr_itemcount: u32,
    pub hr_data_len: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of hsm_request"][::std::mem::size_of::<hsm_request>() - 24usize];
    ["Alignment of hsm_request"][::std::mem::align_of::<hsm_request>() - 8usize];
    [
        "Offset of field: hsm_request::hr_action",
    ][::std::mem::offset_of!(hsm_request, hr_action) - 0usize];
    [
        "Offset of field: hsm_request::hr_archive_id",
    ][::std::mem::offset_of!(hsm_request, hr_archive_id) - 4usize];
    [
        "Offset of field: hsm_request::hr_flags",
    ][::std::mem::offset_of!(hsm_request, hr_flags) - 8usize];
    [
        "Offset of field: hsm_request::hr_itemcount",
    ][::std::mem::offset_of!(hsm_request, hr_itemcount) - 16usize];
    [
        "Offset of field: hsm_request::hr_data_len",
    ][::std::mem::offset_of!(hsm_request, hr_data_len) - 20usize];
};
#[repr(C, packed)]
#[derive(Debug, Default, Copy, Clone)]
pub struct hsm_user_item {
    pub hui_fid: lu_fid,
    pub hui_extent: hsm_extent,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of hsm_user_item"][::std::mem::size_of::<hsm_user_item>() - 32usize];
    ["Alignment of hsm_user_item"][::std::mem::align_of::<hsm_user_item>() - 1usize];
    [
        "Offset of field: hsm_user_item::hui_fid",
    ][::std::mem::offset_of!(hsm_user_item, hui_fid) - 0usize];
    [
        "Offset of field: hsm_user_item::hui_extent",
    ][::std::mem::offset_of!(hsm_user_item, hui_extent) - 16usize];
};
#[repr(C, packed)]
pub struct hsm_user_request {
    pub hur_request: hsm_request,
    pub hur_user_item: __IncompleteArrayField<hsm_user_item>,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of hsm_user_request"][::std::mem::size_of::<hsm_user_request>() - 24usize];
    [
        "Alignment of hsm_user_request",
    ][::std::mem::align_of::<hsm_user_request>() - 1usize];
    [
        "Offset of field: hsm_user_request::hur_request",
    ][::std::mem::offset_of!(hsm_user_request, hur_request) - 0usize];
    [
        "Offset of field: hsm_user_request::hur_user_item",
    ][::std::mem::offset_of!(hsm_user_request, hur_user_item) - 24usize];
};
impl Default for hsm_user_request {
    fn default() -> Self {
        let mut s = ::std::mem::MaybeUninit::<Self>::uninit();
        unsafe {
            ::std::ptr::write_bytes(s.as_mut_ptr(), 0, 1);
            s.assume_init()
        }
    }
}
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct hsm_current_action {
    pub hca_state: u32,
    pub hca_action: u32,
    pub hca_location: hsm_extent,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    [
        "Size of hsm_current_action",
    ][::std::mem::size_of::<hsm_current_action>() - 24usize];
    [
        "Alignment of hsm_current_action",
    ][::std::mem::align_of::<hsm_current_action>() - 4usize];
    [
        "Offset of field: hsm_current_action::hca_state",
    ][::std::mem::offset_of!(hsm_current_action, hca_state) - 0usize];
    [
        "Offset of field: hsm_current_action::hca_action",
    ][::std::mem::offset_of!(hsm_current_action, hca_action) - 4usize];
    [
        "Offset of field: hsm_current_action::hca_location",
    ][::std::mem::offset_of!(hsm_current_action, hca_location) - 8usize];
};
#[repr(C)]
#[derive(Debug, Default)]
pub struct hsm_user_state {
    pub hus_states: u32,
    pub hus_archive_id: u32,
    pub hus_in_progress_state: u32,
    pub hus_in_progress_action: u32,
    pub hus_in_progress_location: hsm_extent,
    pub hus_extended_info: __IncompleteArrayField<::std::os::raw::c_char>,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of hsm_user_state"][::std::mem::size_of::<hsm_user_state>() - 32usize];
    ["Alignment of hsm_user_state"][::std::mem::align_of::<hsm_user_state>() - 4usize];
    [
        "Offset of field: hsm_user_state::hus_states",
    ][::std::mem::offset_of!(hsm_user_state, hus_states) - 0usize];
    [
        "Offset of field: hsm_user_state::hus_archive_id",
    ][::std::mem::offset_of!(hsm_user_state, hus_archive_id) - 4usize];
    [
        "Offset of field: hsm_user_state::hus_in_progress_state",
    ][::std::mem::offset_of!(hsm_user_state, hus_in_progress_state) - 8usize];
    [
        "Offset of field: hsm_user_state::hus_in_progress_action",
    ][::std::mem::offset_of!(hsm_user_state, hus_in_progress_action) - 12usize];
    [
        "Offset of field: hsm_user_state::hus_in_progress_location",
    ][::std::mem::offset_of!(hsm_user_state, hus_in_progress_location) - 16usize];
    [
        "Offset of field: hsm_user_state::hus_extended_info",
    ][::std::mem::offset_of!(hsm_user_state, hus_extended_info) - 32usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct changelog_rec {
    pub cr_namelen: u16,
    pub cr_flags: u16,
    pub cr_type: u32,
    pub cr_index: u64,
    pub cr_prev: u64,
    pub cr_time: u64,
    pub cr_tfid: lu_fid,
    pub cr_pfid: lu_fid,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of changelog_rec"][::std::mem::size_of::<changelog_rec>() - 64usize];
    ["Alignment of changelog_rec"][::std::mem::align_of::<changelog_rec>() - 8usize];
    [
        "Offset of field: changelog_rec::cr_namelen",
    ][::std::mem::offset_of!(changelog_rec, cr_namelen) - 0usize];
    [
        "Offset of field: changelog_rec::cr_flags",
    ][::std::mem::offset_of!(changelog_rec, cr_flags) - 2usize];
    [
        "Offset of field: changelog_rec::cr_type",
    ][::std::mem::offset_of!(changelog_rec, cr_type) - 4usize];
    [
        "Offset of field: changelog_rec::cr_index",
    ][::std::mem::offset_of!(changelog_rec, cr_index) - 8usize];
    [
        "Offset of field: changelog_rec::cr_prev",
    ][::std::mem::offset_of!(changelog_rec, cr_prev) - 16usize];
    [
        "Offset of field: changelog_rec::cr_time",
    ][::std::mem::offset_of!(changelog_rec, cr_time) - 24usize];
    [
        "Offset of field: changelog_rec::cr_tfid",
    ][::std::mem::offset_of!(changelog_rec, cr_tfid) - 32usize];
    [
        "Offset of field: changelog_rec::cr_pfid",
    ][::std::mem::offset_of!(changelog_rec, cr_pfid) - 48usize];
};
#[repr(C)]
#[derive(Debug)]
pub struct hsm_copytool_private {
    _unused: [u8; 0],
}
#[repr(C)]
#[derive(Debug)]
pub struct hsm_copyaction_private {
    _unused: [u8; 0],
}
#[repr(C)]
#[derive(Debug)]
pub struct stat {
    _unused: [u8; 0],
}
pub struct LustreApi {
    __library: ::libloading::Library,
    pub llapi_hsm_copytool_register: Result<
        unsafe extern "C" fn(
            priv_: *mut *mut hsm_copytool_private,
            mnt: *const ::std::os::raw::c_char,
            archive_count: ::std::os::raw::c_int,
            archives: *mut ::std::os::raw::c_int,
            rfd_flags: ::std::os::raw::c_int,
        ) -> ::std::os::raw::c_int,
        ::libloading::Error,
    >,
    pub llapi_hsm_copytool_unregister: Result<
        unsafe extern "C" fn(
            priv_: *mut *mut hsm_copytool_private,
        ) -> ::std::os::raw::c_int,
        ::libloading::Error,
    >,
    pub llapi_hsm_copytool_get_fd: Result<
        unsafe extern "C" fn(ct: *mut hsm_copytool_private) -> ::std::os::raw::c_int,
        ::libloading::Error,
    >,
    pub llapi_hsm_action_begin: Result<
        unsafe extern "C" fn(
            phcp: *mut *mut hsm_copyaction_private,
            ct: *const hsm_copytool_private,
            hai: *const hsm_action_item,
            restore_mdt_index: ::std::os::raw::c_int,
            restore_open_flags: ::std::os::raw::c_int,
            is_error: bool,
        ) -> ::std::os::raw::c_int,
        ::libloading::Error,
    >,
    pub llapi_hsm_action_end: Result<
        unsafe extern "C" fn(
            phcp: *mut *mut hsm_copyaction_private,
            he: *const hsm_extent,
            hp_flags: ::std::os::raw::c_int,
            errval: ::std::os::raw::c_int,
        ) -> ::std::os::raw::c_int,
        ::libloading::Error,
    >,
    pub llapi_hsm_action_get_fd: Result<
        unsafe extern "C" fn(
            hcp: *const hsm_copyaction_private,
        ) -> ::std::os::raw::c_int,
        ::libloading::Error,
    >,
    pub llapi_search_fsname: Result<
        unsafe extern "C" fn(
            pathname: *const ::std::os::raw::c_char,
            fsname: *mut ::std::os::raw::c_char,
        ) -> ::std::os::raw::c_int,
        ::libloading::Error,
    >,
    pub llapi_fid2path: Result<
        unsafe extern "C" fn(
            device: *const ::std::os::raw::c_char,
            fidstr: *const ::std::os::raw::c_char,
            path: *mut ::std::os::raw::c_char,
            pathlen: ::std::os::raw::c_int,
            recno: *mut ::std::os::raw::c_longlong,
            linkno: *mut ::std::os::raw::c_int,
        ) -> ::std::os::raw::c_int,
        ::libloading::Error,
    >,
    pub llapi_hsm_state_get: Result<
        unsafe extern "C" fn(
            path: *const ::std::os::raw::c_char,
            hus: *mut hsm_user_state,
        ) -> ::std::os::raw::c_int,
        ::libloading::Error,
    >,
    pub llapi_hsm_state_set: Result<
        unsafe extern "C" fn(
            path: *const ::std::os::raw::c_char,
            setmask: u64,
            clearmask: u64,
            archive_id: u32,
        ) -> ::std::os::raw::c_int,
        ::libloading::Error,
    >,
    pub llapi_get_mdt_index_by_fid: Result<
        unsafe extern "C" fn(
            fd: ::std::os::raw::c_int,
            fid: *const lu_fid,
            mdt_index: *mut ::std::os::raw::c_int,
        ) -> ::std::os::raw::c_int,
        ::libloading::Error,
    >,
    pub llapi_getname: Result<
        unsafe extern "C" fn(
            path: *const ::std::os::raw::c_char,
            buf: *mut ::std::os::raw::c_char,
            size: ::std::os::raw::c_ulong,
        ) -> ::std::os::raw::c_int,
        ::libloading::Error,
    >,
    pub llapi_msg_set_level: Result<
        unsafe extern "C" fn(level: ::std::os::raw::c_int),
        ::libloading::Error,
    >,
    pub llapi_hsm_request: Result<
        unsafe extern "C" fn(
            path: *const ::std::os::raw::c_char,
            request: *const hsm_user_request,
        ) -> ::std::os::raw::c_int,
        ::libloading::Error,
    >,
    pub llapi_hsm_current_action: Result<
        unsafe extern "C" fn(
            path: *const ::std::os::raw::c_char,
            hca: *mut hsm_current_action,
        ) -> ::std::os::raw::c_int,
        ::libloading::Error,
    >,
    pub llapi_get_obd_count: Result<
        unsafe extern "C" fn(
            mnt: *mut ::std::os::raw::c_char,
            count: *mut ::std::os::raw::c_int,
            is_mdt: ::std::os::raw::c_int,
        ) -> ::std::os::raw::c_int,
        ::libloading::Error,
    >,
    pub llapi_create_volatile_idx: Result<
        unsafe extern "C" fn(
            directory: *const ::std::os::raw::c_char,
            mdt_idx: ::std::os::raw::c_int,
            open_flags: ::std::os::raw::c_int,
        ) -> ::std::os::raw::c_int,
        ::libloading::Error,
    >,
    pub llapi_fd2fid: Result<
        unsafe extern "C" fn(
            fd: ::std::os::raw::c_int,
            fid: *mut lu_fid,
        ) -> ::std::os::raw::c_int,
        ::libloading::Error,
    >,
    pub llapi_path2fid: Result<
        unsafe extern "C" fn(
            path: *const ::std::os::raw::c_char,
            fid: *mut lu_fid,
        ) -> ::std::os::raw::c_int,
        ::libloading::Error,
    >,
    pub llapi_get_data_version: Result<
        unsafe extern "C" fn(
            fd: ::std::os::raw::c_int,
            data_version: *mut u64,
            flags: u64,
        ) -> ::std::os::raw::c_int,
        ::libloading::Error,
    >,
    pub llapi_hsm_import: Result<
        unsafe extern "C" fn(
            dst: *const ::std::os::raw::c_char,
            archive: ::std::os::raw::c_int,
            st: *const stat,
            stripe_size: ::std::os::raw::c_ulonglong,
            stripe_offset: ::std::os::raw::c_int,
            stripe_count: ::std::os::raw::c_int,
            stripe_pattern: ::std::os::raw::c_int,
            pool_name: *mut ::std::os::raw::c_char,
            newfid: *mut lu_fid,
        ) -> ::std::os::raw::c_int,
        ::libloading::Error,
    >,
    pub llapi_changelog_start: Result<
        unsafe extern "C" fn(
            priv_: *mut *mut ::std::os::raw::c_void,
            flags: ::std::os::raw::c_int,
            mdtname: *const ::std::os::raw::c_char,
            startrec: ::std::os::raw::c_longlong,
        ) -> ::std::os::raw::c_int,
        ::libloading::Error,
    >,
    pub llapi_changelog_recv: Result<
        unsafe extern "C" fn(
            priv_: *mut ::std::os::raw::c_void,
            rech: *mut *mut changelog_rec,
        ) -> ::std::os::raw::c_int,
        ::libloading::Error,
    >,
    pub llapi_changelog_free: Result<
        unsafe extern "C" fn(rech: *mut *mut changelog_rec) -> ::std::os::raw::c_int,
        ::libloading::Error,
    >,
    pub llapi_changelog_fini: Result<
        unsafe extern "C" fn(
            priv_: *mut *mut ::std::os::raw::c_void,
        ) -> ::std::os::raw::c_int,
        ::libloading::Error,
    >,
    pub llapi_changelog_clear: Result<
        unsafe extern "C" fn(
            mdtname: *const ::std::os::raw::c_char,
            idstr: *const ::std::os::raw::c_char,
            endrec: ::std::os::raw::c_longlong,
        ) -> ::std::os::raw::c_int,
        ::libloading::Error,
    >,
}
impl LustreApi {
    pub unsafe fn new<P>(path: P) -> Result<Self, ::libloading::Error>
    where
        P: AsRef<::std::ffi::OsStr>,
    {
        let path = path.as_ref();
        let library = ::libloading::Library::new(path)?;
        Self::from_library(library)
    }
    pub unsafe fn from_library<L>(library: L) -> Result<Self, ::libloading::Error>
    where
        L: Into<::libloading::Library>,
    {
        let __library = library.into();
        let llapi_hsm_copytool_register = __library
            .get(b"llapi_hsm_copytool_register\0")
            .map(|sym| *sym);
        let llapi_hsm_copytool_unregister = __library
            .get(b"llapi_hsm_copytool_unregister\0")
            .map(|sym| *sym);
        let llapi_hsm_copytool_get_fd = __library
            .get(b"llapi_hsm_copytool_get_fd\0")
            .map(|sym| *sym);
        let llapi_hsm_action_begin = __library
            .get(b"llapi_hsm_action_begin\0")
            .map(|sym| *sym);
        let llapi_hsm_action_end = __library
            .get(b"llapi_hsm_action_end\0")
            .map(|sym| *sym);
        let llapi_hsm_action_get_fd = __library
            .get(b"llapi_hsm_action_get_fd\0")
            .map(|sym| *sym);
        let llapi_search_fsname = __library
            .get(b"llapi_search_fsname\0")
            .map(|sym| *sym);
        let llapi_fid2path = __library.get(b"llapi_fid2path\0").map(|sym| *sym);
        let llapi_hsm_state_get = __library
            .get(b"llapi_hsm_state_get\0")
            .map(|sym| *sym);
        let llapi_hsm_state_set = __library
            .get(b"llapi_hsm_state_set\0")
            .map(|sym| *sym);
        let llapi_get_mdt_index_by_fid = __library
            .get(b"llapi_get_mdt_index_by_fid\0")
            .map(|sym| *sym);
        let llapi_getname = __library.get(b"llapi_getname\0").map(|sym| *sym);
        let llapi_msg_set_level = __library
            .get(b"llapi_msg_set_level\0")
            .map(|sym| *sym);
        let llapi_hsm_request = __library.get(b"llapi_hsm_request\0").map(|sym| *sym);
        let llapi_hsm_current_action = __library
            .get(b"llapi_hsm_current_action\0")
            .map(|sym| *sym);
        let llapi_get_obd_count = __library
            .get(b"llapi_get_obd_count\0")
            .map(|sym| *sym);
        let llapi_create_volatile_idx = __library
            .get(b"llapi_create_volatile_idx\0")
            .map(|sym| *sym);
        let llapi_fd2fid = __library.get(b"llapi_fd2fid\0").map(|sym| *sym);
        let llapi_path2fid = __library.get(b"llapi_path2fid\0").map(|sym| *sym);
        let llapi_get_data_version = __library
            .get(b"llapi_get_data_version\0")
            .map(|sym| *sym);
        let llapi_hsm_import = __library.get(b"llapi_hsm_import\0").map(|sym| *sym);
        let llapi_changelog_start = __library
            .get(b"llapi_changelog_start\0")
            .map(|sym| *sym);
        let llapi_changelog_recv = __library
            .get(b"llapi_changelog_recv\0")
            .map(|sym| *sym);
        let llapi_changelog_free = __library
            .get(b"llapi_changelog_free\0")
            .map(|sym| *sym);
        let llapi_changelog_fini = __library
            .get(b"llapi_changelog_fini\0")
            .map(|sym| *sym);
        let llapi_changelog_clear = __library
            .get(b"llapi_changelog_clear\0")
            .map(|sym| *sym);
        Ok(LustreApi {
            __library,
            llapi_hsm_copytool_register,
            llapi_hsm_copytool_unregister,
            llapi_hsm_copytool_get_fd,
            llapi_hsm_action_begin,
            llapi_hsm_action_end,
            llapi_hsm_action_get_fd,
            llapi_search_fsname,
            llapi_fid2path,
            llapi_hsm_state_get,
            llapi_hsm_state_set,
            llapi_get_mdt_index_by_fid,
            llapi_getname,
            llapi_msg_set_level,
            llapi_hsm_request,
            llapi_hsm_current_action,
            llapi_get_obd_count,
            llapi_create_volatile_idx,
            llapi_fd2fid,
            llapi_path2fid,
            llapi_get_data_version,
            llapi_hsm_import,
            llapi_changelog_start,
            llapi_changelog_recv,
            llapi_changelog_free,
            llapi_changelog_fini,
            llapi_changelog_clear,
        })
    }
    pub unsafe fn llapi_hsm_copytool_register(
        &self,
        priv_: *mut *mut hsm_copytool_private,
        mnt: *const ::std::os::raw::c_char,
        archive_count: ::std::os::raw::c_int,
        archives: *mut ::std::os::raw::c_int,
        rfd_flags: ::std::os::raw::c_int,
    ) -> ::std::os::raw::c_int {
        (self
            .llapi_hsm_copytool_register
            .as_ref()
            .expect(
                "Expected function, got error.",
            ))(priv_, mnt, archive_count, archives, rfd_flags)
    }
    pub unsafe fn llapi_hsm_copytool_unregister(
        &self,
        priv_: *mut *mut hsm_copytool_private,
    ) -> ::std::os::raw::c_int {
        (self
            .llapi_hsm_copytool_unregister
            .as_ref()
            .expect("Expected function, got error."))(priv_)
    }
    pub unsafe fn llapi_hsm_copytool_get_fd(
        &self,
        ct: *mut hsm_copytool_private,
    ) -> ::std::os::raw::c_int {
        (self
            .llapi_hsm_copytool_get_fd
            .as_ref()
            .expect("Expected function, got error."))(ct)
    }
    pub unsafe fn llapi_hsm_action_begin(
        &self,
        phcp: *mut *mut hsm_copyaction_private,
        ct: *const hsm_copytool_private,
        hai: *const hsm_action_item,
        restore_mdt_index: ::std::os::raw::c_int,
        restore_open_flags: ::std::os::raw::c_int,
        is_error: bool,
    ) -> ::std::os::raw::c_int {
        (self
            .llapi_hsm_action_begin
            .as_ref()
            .expect(
                "Expected function, got error.",
            ))(phcp, ct, hai, restore_mdt_index, restore_open_flags, is_error)
    }
    pub unsafe fn llapi_hsm_action_end(
        &self,
        phcp: *mut *mut hsm_copyaction_private,
        he: *const hsm_extent,
        hp_flags: ::std::os::raw::c_int,
        errval: ::std::os::raw::c_int,
    ) -> ::std::os::raw::c_int {
        (self
            .llapi_hsm_action_end
            .as_ref()
            .expect("Expected function, got error."))(phcp, he, hp_flags, errval)
    }
    pub unsafe fn llapi_hsm_action_get_fd(
        &self,
        hcp: *const hsm_copyaction_private,
    ) -> ::std::os::raw::c_int {
        (self
            .llapi_hsm_action_get_fd
            .as_ref()
            .expect("Expected function, got error."))(hcp)
    }
    pub unsafe fn llapi_search_fsname(
        &self,
        pathname: *const ::std::os::raw::c_char,
        fsname: *mut ::std::os::raw::c_char,
    ) -> ::std::os::raw::c_int {
        (self
            .llapi_search_fsname
            .as_ref()
            .expect("Expected function, got error."))(pathname, fsname)
    }
    pub unsafe fn llapi_fid2path(
        &self,
        device: *const ::std::os::raw::c_char,
        fidstr: *const ::std::os::raw::c_char,
        path: *mut ::std::os::raw::c_char,
        pathlen: ::std::os::raw::c_int,
        recno: *mut ::std::os::raw::c_longlong,
        linkno: *mut ::std::os::raw::c_int,
    ) -> ::std::os::raw::c_int {
        (self
            .llapi_fid2path
            .as_ref()
            .expect(
                "Expected function, got error.",
            ))(device, fidstr, path, pathlen, recno, linkno)
    }
    pub unsafe fn llapi_hsm_state_get(
        &self,
        path: *const ::std::os::raw::c_char,
        hus: *mut hsm_user_state,
    ) -> ::std::os::raw::c_int {
        (self
            .llapi_hsm_state_get
            .as_ref()
            .expect("Expected function, got error."))(path, hus)
    }
    pub unsafe fn llapi_hsm_state_set(
        &self,
        path: *const ::std::os::raw::c_char,
        setmask: u64,
        clearmask: u64,
        archive_id: u32,
    ) -> ::std::os::raw::c_int {
        (self
            .llapi_hsm_state_set
            .as_ref()
            .expect(
                "Expected function, got error.",
            ))(path, setmask, clearmask, archive_id)
    }
    pub unsafe fn llapi_get_mdt_index_by_fid(
        &self,
        fd: ::std::os::raw::c_int,
        fid: *const lu_fid,
        mdt_index: *mut ::std::os::raw::c_int,
    ) -> ::std::os::raw::c_int {
        (self
            .llapi_get_mdt_index_by_fid
            .as_ref()
            .expect("Expected function, got error."))(fd, fid, mdt_index)
    }
    pub unsafe fn llapi_getname(
        &self,
        path: *const ::std::os::raw::c_char,
        buf: *mut ::std::os::raw::c_char,
        size: ::std::os::raw::c_ulong,
    ) -> ::std::os::raw::c_int {
        (self
            .llapi_getname
            .as_ref()
            .expect("Expected function, got error."))(path, buf, size)
    }
    pub unsafe fn llapi_msg_set_level(&self, level: ::std::os::raw::c_int) {
        (self
            .llapi_msg_set_level
            .as_ref()
            .expect("Expected function, got error."))(level)
    }
    pub unsafe fn llapi_hsm_request(
        &self,
        path: *const ::std::os::raw::c_char,
        request: *const hsm_user_request,
    ) -> ::std::os::raw::c_int {
        (self
            .llapi_hsm_request
            .as_ref()
            .expect("Expected function, got error."))(path, request)
    }
    pub unsafe fn llapi_hsm_current_action(
        &self,
        path: *const ::std::os::raw::c_char,
        hca: *mut hsm_current_action,
    ) -> ::std::os::raw::c_int {
        (self
            .llapi_hsm_current_action
            .as_ref()
            .expect("Expected function, got error."))(path, hca)
    }
    pub unsafe fn llapi_get_obd_count(
        &self,
        mnt: *mut ::std::os::raw::c_char,
        count: *mut ::std::os::raw::c_int,
        is_mdt: ::std::os::raw::c_int,
    ) -> ::std::os::raw::c_int {
        (self
            .llapi_get_obd_count
            .as_ref()
            .expect("Expected function, got error."))(mnt, count, is_mdt)
    }
    pub unsafe fn llapi_create_volatile_idx(
        &self,
        directory: *const ::std::os::raw::c_char,
        mdt_idx: ::std::os::raw::c_int,
        open_flags: ::std::os::raw::c_int,
    ) -> ::std::os::raw::c_int {
        (self
            .llapi_create_volatile_idx
            .as_ref()
            .expect("Expected function, got error."))(directory, mdt_idx, open_flags)
    }
    pub unsafe fn llapi_fd2fid(
        &self,
        fd: ::std::os::raw::c_int,
        fid: *mut lu_fid,
    ) -> ::std::os::raw::c_int {
        (self.llapi_fd2fid.as_ref().expect("Expected function, got error."))(fd, fid)
    }
    pub unsafe fn llapi_path2fid(
        &self,
        path: *const ::std::os::raw::c_char,
        fid: *mut lu_fid,
    ) -> ::std::os::raw::c_int {
        (self.llapi_path2fid.as_ref().expect("Expected function, got error."))(path, fid)
    }
    pub unsafe fn llapi_get_data_version(
        &self,
        fd: ::std::os::raw::c_int,
        data_version: *mut u64,
        flags: u64,
    ) -> ::std::os::raw::c_int {
        (self
            .llapi_get_data_version
            .as_ref()
            .expect("Expected function, got error."))(fd, data_version, flags)
    }
    pub unsafe fn llapi_hsm_import(
        &self,
        dst: *const ::std::os::raw::c_char,
        archive: ::std::os::raw::c_int,
        st: *const stat,
        stripe_size: ::std::os::raw::c_ulonglong,
        stripe_offset: ::std::os::raw::c_int,
        stripe_count: ::std::os::raw::c_int,
        stripe_pattern: ::std::os::raw::c_int,
        pool_name: *mut ::std::os::raw::c_char,
        newfid: *mut lu_fid,
    ) -> ::std::os::raw::c_int {
        (self
            .llapi_hsm_import
            .as_ref()
            .expect(
                "Expected function, got error.",
            ))(
            dst,
            archive,
            st,
            stripe_size,
            stripe_offset,
            stripe_count,
            stripe_pattern,
            pool_name,
            newfid,
        )
    }
    pub unsafe fn llapi_changelog_start(
        &self,
        priv_: *mut *mut ::std::os::raw::c_void,
        flags: ::std::os::raw::c_int,
        mdtname: *const ::std::os::raw::c_char,
        startrec: ::std::os::raw::c_longlong,
    ) -> ::std::os::raw::c_int {
        (self
            .llapi_changelog_start
            .as_ref()
            .expect("Expected function, got error."))(priv_, flags, mdtname, startrec)
    }
    pub unsafe fn llapi_changelog_recv(
        &self,
        priv_: *mut ::std::os::raw::c_void,
        rech: *mut *mut changelog_rec,
    ) -> ::std::os::raw::c_int {
        (self
            .llapi_changelog_recv
            .as_ref()
            .expect("Expected function, got error."))(priv_, rech)
    }
    pub unsafe fn llapi_changelog_free(
        &self,
        rech: *mut *mut changelog_rec,
    ) -> ::std::os::raw::c_int {
        (self
            .llapi_changelog_free
            .as_ref()
            .expect("Expected function, got error."))(rech)
    }
    pub unsafe fn llapi_changelog_fini(
        &self,
        priv_: *mut *mut ::std::os::raw::c_void,
    ) -> ::std::os::raw::c_int {
        (self
            .llapi_changelog_fini
            .as_ref()
            .expect("Expected function, got error."))(priv_)
    }
    pub unsafe fn llapi_changelog_clear(
        &self,
        mdtname: *const ::std::os::raw::c_char,
        idstr: *const ::std::os::raw::c_char,
        endrec: ::std::os::raw::c_longlong,
    ) -> ::std::os::raw::c_int {
        (self
            .llapi_changelog_clear
            .as_ref()
            .expect("Expected function, got error."))(mdtname, idstr, endrec)
    }
}

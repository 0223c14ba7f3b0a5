//! The layout of the C structs and the values of the constants that we share with Lustre, for a test to
//! compare with what real headers say.

use std::mem::{align_of, offset_of, size_of};

use super::bindings as c;
use super::ioctl::{self, HsmCopy};

/// One C struct as compiled here.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Its tag.
    pub name: &'static str,
    /// `sizeof`
    pub size: usize,
    /// `alignof`
    pub align: usize,
    /// Its fields with their `offsetof`.
    pub fields: &'static [(&'static str, usize)],
}

macro_rules! layout {
    ($name:ident { $($field:ident),* }) => {
        Layout {
            name: stringify!($name),
            size: size_of::<c::$name>(),
            align: align_of::<c::$name>(),
            fields: &[$((stringify!($field), offset_of!(c::$name, $field))),*],
        }
    };
}

/// Every struct that crosses the border, for the test that compares them with the headers.
#[must_use]
pub fn structs() -> Vec<Layout> {
    vec![
        layout!(kuc_hdr {
            kuc_magic,
            kuc_transport,
            kuc_flags,
            kuc_msgtype,
            kuc_msglen
        }),
        layout!(lustre_kernelcomm {
            lk_wfd,
            lk_rfd,
            lk_uid,
            lk_group,
            lk_data_count,
            lk_flags,
            lk_data
        }),
        layout!(lu_fid { f_seq, f_oid, f_ver }),
        layout!(hsm_extent { offset, length }),
        layout!(hsm_action_list {
            hal_version,
            hal_count,
            hal_compound_id,
            hal_flags,
            hal_archive_id,
            padding1,
            hal_fsname
        }),
        layout!(hsm_action_item {
            hai_len,
            hai_action,
            hai_fid,
            hai_dfid,
            hai_extent,
            hai_cookie,
            hai_gid,
            hai_data
        }),
        layout!(hsm_user_state {
            hus_states,
            hus_archive_id,
            hus_in_progress_state,
            hus_in_progress_action,
            hus_in_progress_location,
            hus_extended_info
        }),
        layout!(hsm_progress {
            hp_fid,
            hp_cookie,
            hp_extent,
            hp_flags,
            hp_errval,
            padding
        }),
        Layout {
            name: "hsm_copy",
            size: size_of::<HsmCopy>(),
            align: align_of::<HsmCopy>(),
            fields: &[
                ("hc_data_version", offset_of!(HsmCopy, hc_data_version)),
                ("hc_flags", offset_of!(HsmCopy, hc_flags)),
                ("hc_errval", offset_of!(HsmCopy, hc_errval)),
                ("padding", offset_of!(HsmCopy, padding)),
                ("hc_hai", offset_of!(HsmCopy, hc_hai)),
            ],
        },
    ]
}

/// The constants, by name.
#[must_use]
pub const fn constants() -> &'static [(&'static str, u32)] {
    &[
        ("KUC_MAGIC", c::KUC_MAGIC),
        ("KUC_TRANSPORT_GENERIC", c::KUC_TRANSPORT_GENERIC),
        ("KUC_TRANSPORT_HSM", c::KUC_TRANSPORT_HSM),
        ("KUC_MSG_SHUTDOWN", c::KUC_MSG_SHUTDOWN),
        ("KUC_GRP_HSM", c::KUC_GRP_HSM),
        ("HMT_ACTION_LIST", c::HMT_ACTION_LIST),
        ("HAL_VERSION", c::HAL_VERSION),
        ("LK_FLG_STOP", c::LK_FLG_STOP),
        ("LK_FLG_DATANR", c::LK_FLG_DATANR),
        ("HSMA_ARCHIVE", c::HSMA_ARCHIVE),
        ("HSMA_RESTORE", c::HSMA_RESTORE),
        ("HSMA_REMOVE", c::HSMA_REMOVE),
        ("HSMA_CANCEL", c::HSMA_CANCEL),
        ("HSM_REQ_BLOCKING", c::HSM_REQ_BLOCKING),
        ("HS_DIRTY", c::HS_DIRTY),
        ("HS_RELEASED", c::HS_RELEASED),
        ("HS_ARCHIVED", c::HS_ARCHIVED),
        ("HS_LOST", c::HS_LOST),
        ("HP_FLAG_COMPLETED", c::HP_FLAG_COMPLETED),
        ("HP_FLAG_RETRY", c::HP_FLAG_RETRY),
        ("LL_IOC_HSM_CT_START", c::LL_IOC_HSM_CT_START),
        ("LL_IOC_HSM_COPY_START", ioctl::LL_IOC_HSM_COPY_START),
        ("LL_IOC_HSM_COPY_END", ioctl::LL_IOC_HSM_COPY_END),
        ("LL_IOC_HSM_PROGRESS", c::LL_IOC_HSM_PROGRESS),
    ]
}

#[cfg(all(test, feature = "bindgen"))]
mod tests {
    #[test]
    fn the_committed_bindings_are_what_bindgen_makes_of_the_header() {
        let fresh = include_str!(concat!(env!("OUT_DIR"), "/bindings.rs"));
        let committed = include_str!("bindings.rs");
        assert!(
            fresh == committed,
            "copy {}/bindings.rs to src/lustre/bindings.rs",
            env!("OUT_DIR")
        );
    }
}

//! How wrapper.h becomes bindings; shared by build.rs and `cargo xtask bindings`.

/// The bindings as Rust source.
pub(crate) fn generate(header: &str) -> String {
    bindgen::Builder::default()
        .header(header)
        .allowlist_function("llapi_.*")
        .allowlist_type("kuc_hdr|lustre_kernelcomm|lu_fid|hsm_.*|changelog_rec")
        .allowlist_var("KUC_.*|LK_.*|HMT_.*|HAL_.*|HSMA_.*|HUA_.*|HSM_.*|HP_.*|HS_.*|LL_IOC_.*|LL_DV_.*|CLF_.*")
        .dynamic_library_name("LustreApi")
        // Each symbol is its own Result, so that one error can name all that are missing.
        .dynamic_link_require_all(false)
        .derive_debug(true)
        .derive_default(true)
        .layout_tests(true)
        .merge_extern_blocks(true)
        .formatter(bindgen::Formatter::Prettyplease)
        .disable_header_comment()
        .generate()
        .expect("wrapper.h is valid C")
        .to_string()
}

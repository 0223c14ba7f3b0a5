//! With feature `bindgen`: wrapper.h > OUT_DIR/bindings.rs, which a test compares with the committed
//! file. Without it (the default) nothing is generated and neither libclang nor a C header is needed.

fn main() {
    println!("cargo:rerun-if-changed=wrapper.h");
    println!("cargo:rerun-if-changed=build.rs");
    #[cfg(feature = "bindgen")]
    bindings::generate();
}

#[cfg(feature = "bindgen")]
mod bindings {
    use std::path::PathBuf;

    pub(crate) fn generate() {
        let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
        bindgen::Builder::default()
            .header("wrapper.h")
            .allowlist_function("llapi_.*")
            .allowlist_type("kuc_hdr|lustre_kernelcomm|lu_fid|hsm_.*")
            .allowlist_var("KUC_.*|LK_.*|HMT_.*|HAL_.*|HSMA_.*|HSM_.*|HP_.*|HS_.*|LL_IOC_.*")
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
            .write_to_file(out.join("bindings.rs"))
            .expect("OUT_DIR is writable");
    }
}

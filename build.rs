//! With feature `bindgen`: wrapper.h > OUT_DIR/bindings.rs, which a test compares with the committed
//! file. Without it (the default) nothing is generated and neither libclang nor a C header is needed.

#[cfg(feature = "bindgen")]
#[path = "build/bindings.rs"]
mod bindings;

fn main() {
    println!("cargo:rerun-if-changed=wrapper.h");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=build/bindings.rs");
    #[cfg(feature = "bindgen")]
    {
        let out = std::path::PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
        std::fs::write(out.join("bindings.rs"), bindings::generate("wrapper.h")).expect("OUT_DIR is writable");
    }
}

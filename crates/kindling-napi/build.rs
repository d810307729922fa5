//! Sets the link options of a Node addon.
fn main() {
    napi_build::setup();
}

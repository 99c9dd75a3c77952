//! The mesozone program; everything is in the library.

fn main() -> std::process::ExitCode {
    mesozone::cli::main()
}

//! One test binary: everything that needs the whole program, a server, or a recording.
mod cases;
mod server;

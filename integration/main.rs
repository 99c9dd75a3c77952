//! One test binary: everything that needs the whole program, a server, or a recording.
mod answering;
mod cases;
mod documents;
mod harness;
mod masters;
mod peer;
mod proxy;
mod publishing;
mod quickstart;
mod running;
mod server;
mod simulated;
mod simulated_master;
mod site;
mod tidy;
mod zookeeper;

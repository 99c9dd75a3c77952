pub mod name;
pub mod rr;
pub mod wire;
pub mod zone;
pub mod tsig;

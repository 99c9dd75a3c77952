//! mesozone against the name servers it publishes to, each started as an operator would start it.

mod harness;
mod peer;
mod proxy;

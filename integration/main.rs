mod simulated;
mod simulated_master;

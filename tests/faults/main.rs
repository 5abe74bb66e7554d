//! The operator under injected faults.

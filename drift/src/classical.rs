//! The statistics that other tools decide by.

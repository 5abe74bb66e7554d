//! The HTTP layers on the simulated engine, called without a socket.

mod api;
mod lifecycle;
mod support;

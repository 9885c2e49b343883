//! The proxy between real sockets: every kind of fault, and the traffic that is left alone.

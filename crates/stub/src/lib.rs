//! The freestanding stub that runs inside a managed program, and the protocol it speaks.

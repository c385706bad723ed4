// What a process does for the first time is not for its first model to wait for.
// No torch headers: app.cc includes this.
#pragma once

namespace hearth {

// Loads a small TorchScript model of its own, runs it and lets it go: some 20 ms, after which the tables of operators,
// passes and types that LibTorch fills with its first program are there, and the code that a load takes is in memory.
// A rehearsal that fails is logged and changes nothing else. REQUIRES: InitialiseTorch().
void RehearseLoad();

}  // namespace hearth

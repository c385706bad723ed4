// LibTorch as a process-wide thing: its version, its threads, its operator libraries.
// No torch headers: app.cc and tests include this.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "server/base/status.h"

namespace hearth {

std::string TorchVersion();  // "2.13.0"

// Threads inside an operator, the discipline of the whole process:
//
//   - Who computes is a thread of ours; those that help it (an OpenMP team) are its own, stay, and sleep between runs.
//     How many of them a run may use is set on its thread before it runs, and nowhere else.
//   - For requests there are compute.threads x compute.intra_op_threads processors. RunScheduler lets a run begin when as
//     many of them are free as its model has threads, so all runs together never have more.
//   - A load computes alone, on its own thread, also when it warms up a model that has more threads in service. What
//     torch.jit.fork starts computes alone as well, on the one thread there is for that.
//   - Code that AOTInductor compiled for a fixed number of threads asks for these whatever is set here.

// Once on each thread that runs models, first of all. `usual`: of a model that does not say. `most`: no run has more here.
void ConfigureTorchThread(int usual, int most);

// What runs on this thread from now on has so many; 0: as many as usual. Nothing but a look where it has. On a thread that
// nobody configured, usual is as many as LibTorch takes by itself.
void UseTorchThreads(int wanted);

// Once, before the first model: inter-op pool size 1 (our own pool is the parallelism between models),
// the operator upgraders, and what the JIT would compile for itself during the first model's first run.
void InitialiseTorch();

// dlopens operator libraries (torchvision's `nms`, say), so that programs which use them can be
// parsed. They stay for the life of the process: their operators are registered globally.
// INVALID_ARGUMENT naming the library and the dynamic linker's reason.
absl::Status LoadOperatorLibraries(const std::vector<std::filesystem::path>& libraries);

}  // namespace hearth

// What a process that reads hostile files gives up before it opens one.
#pragma once

namespace hearth {

// Address space for 1 GiB, 10 s of CPU time, no files beyond descriptors 0 to 3, none written, no children,
// no core dump, no new privileges; ends when its parent does, and goes first when memory runs out.
// False: the system did not take one of them.
[[nodiscard]] bool LimitResources();

// From here on this thread can read and write what is open, use memory and end. Other system calls fail
// with EPERM: code that a file might smuggle in finds no files, network, programs or processes. False: the
// kernel has no seccomp filters.
[[nodiscard]] bool ForbidSystemCalls();

}  // namespace hearth

// How much a thread matters.
#pragma once

namespace hearth {

// From now on the calling thread gets the CPU and the disk when nobody else wants them, as far as the kernel
// lets us. There is no way back for an unprivileged thread.
void RunThisThreadWhenIdle();

}  // namespace hearth

// How much a thread matters.
#pragma once

namespace hearth {

// From now on the calling thread gets the CPU and the disk when nobody else wants them, as far as the kernel
// lets us. There is no way back for an unprivileged thread.
void RunThisThreadWhenIdle();

// The same, but when others want them, too, it still gets a small share: a tenth of the CPU beside one thread that
// counts in full.
void RunThisThreadInBackground();

}  // namespace hearth

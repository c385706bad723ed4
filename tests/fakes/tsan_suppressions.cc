// What ThreadSanitizer must not report. hearth_test() compiles it into every binary of a TSan build.
//
// absl::Status is a counted reference. Debian's libabsl, which drops the last one, is not built for
// TSan, so TSan sees the memory freed but not the atomic decrements that make it safe.
extern "C" const char* __tsan_default_suppressions();
extern "C" const char* __tsan_default_suppressions() { return "race:absl::*::Status::Unref\n"; }

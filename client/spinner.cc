#include "client/spinner.h"

#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <stop_token>
#include <string_view>
#include <utility>

#include "client/utf8.h"

namespace hearth::client {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kDelay(333);  // what is over sooner needs no words
constexpr std::chrono::milliseconds kFrame(100);
constexpr char kFrames[] = {'|', '/', '-', '\\'};

void Spin(const std::stop_token& stop, const std::string& text) {
  const Clock::time_point start = Clock::now();
  // Only to wait on: there is nothing to guard, the token carries the one message.
  std::mutex mu;
  std::condition_variable_any woken;
  std::unique_lock lock(mu);
  const auto stopped = [&] { return stop.stop_requested(); };
  if (woken.wait_for(lock, stop, kDelay, stopped)) return;
  std::size_t frame = 0;
  do {
    const std::chrono::duration<double> elapsed = Clock::now() - start;
    std::fprintf(stderr, "\r\x1b[K%c %s  %.1f s", kFrames[frame++ % sizeof(kFrames)], text.c_str(),
                 elapsed.count());
    std::fflush(stderr);
  } while (!woken.wait_for(lock, stop, kFrame, stopped));
  std::fputs("\r\x1b[K", stderr);
  std::fflush(stderr);
}

}  // namespace

Spinner::Spinner(std::string text) {
  if (!IsTerminal(STDERR_FILENO)) return;
  thread_ = std::jthread(
      [text = Printable(text)](const std::stop_token& stop) { Spin(stop, text); });
}

Spinner::~Spinner() = default;  // jthread asks the thread to stop and waits for it

bool IsTerminal(int fd) {
  const char* term = std::getenv("TERM");
  return isatty(fd) == 1 && term != nullptr && std::string_view(term) != "dumb" && *term != '\0';
}

}  // namespace hearth::client

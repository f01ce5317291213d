#include "cli/signals.h"

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdint>
#include <cstdlib>

namespace prism::cli {

Signals::Signals(bool hangup) {
  ::signal(SIGPIPE, SIG_IGN);  // a client that goes away is an error of its call, not the end of the program
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  if (hangup) sigaddset(&set, SIGHUP);
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  signals_ = ::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  wake_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (signals_ < 0 || wake_ < 0) std::abort();  // no file descriptor left at the very beginning
}

Signals::~Signals() {
  ::close(signals_);
  ::close(wake_);
}

Signals::Event Signals::wait(std::optional<std::chrono::steady_clock::time_point> until, int descriptor) {
  while (true) {
    int patience = -1;
    if (until) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(*until - std::chrono::steady_clock::now()).count();
      if (left <= 0) return Event::timeout;
      patience = static_cast<int>(std::min<std::int64_t>(left, 1'000'000));
    }
    std::array<pollfd, 3> files{pollfd{signals_, POLLIN, 0}, pollfd{wake_, POLLIN, 0}, pollfd{descriptor, POLLIN, 0}};
    if (::poll(files.data(), files.size(), patience) <= 0) continue;  // the time is looked at above
    if ((files[0].revents & POLLIN) != 0) {
      signalfd_siginfo info;
      if (::read(signals_, &info, sizeof info) == sizeof info)
        return info.ssi_signo == SIGHUP ? Event::hangup : Event::signal;
    }
    std::uint64_t count = 0;
    if ((files[1].revents & POLLIN) != 0 && ::read(wake_, &count, sizeof count) == sizeof count) return Event::wake;
    if (files[2].revents != 0) return Event::readable;
  }
}

void Signals::wake() {
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto written = ::write(wake_, &one, sizeof one);  // full: it is awake already
}

}  // namespace prism::cli

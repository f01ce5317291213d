// The connections of the admin server. One thread reads whole requests and writes answers and never waits for a client;
// others work the answers out. So a client that says nothing, or says it slowly, or does not read its answer, holds up
// nobody, and any number of them take no more than what is set aside.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/types.h"

namespace prism::admin {

class Connections {
 public:
  struct Limits {
    std::size_t connections = 512;                   // for a newer one, the oldest that waits for its client is closed
    std::size_t head_bytes = 16UL << 10;             // request line and headers: 431
    std::size_t body_bytes = 4UL << 20;              // 413
    std::size_t buffered_bytes = 32UL << 20;         // of requests that are not whole yet, all together
    std::size_t waiting = 64;                        // whole requests that wait for a thread: 503
    std::size_t threads = 8;                         // requests that are worked out at a time; one more for urgent ones
    Clock::duration head = std::chrono::seconds(5);  // until the head is there: 408
    Clock::duration body = std::chrono::seconds(30);   // from then until the body is
    Clock::duration write = std::chrono::seconds(30);  // until the client has read its answer
  };
  // The answer to a whole request, as bytes; called by several threads.
  using Work = std::function<std::string(std::string_view request)>;
  // Does a request with this first line go before all others, since its answer waits for nothing?
  using Urgent = std::function<bool(std::string_view line)>;

  Connections(Limits limits, Work work, Urgent urgent);
  ~Connections();
  Connections(const Connections&) = delete;
  Connections& operator=(const Connections&) = delete;

  // The socket is its own from now on. Any thread.
  void take(int socket);
  // Answers what is whole, then closes everything. A second call does nothing; what is taken later is closed.
  void stop();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace prism::admin

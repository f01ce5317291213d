// HTTP/1.1 on an event loop: libcurl's multi interface with the loop's sockets and timers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backends/client/errors.h"
#include "backends/client/options.h"
#include "backends/s3/sigv4.h"
#include "capabilities/backend.h"
#include "runtime/context.h"
#include "runtime/loop.h"
#include "runtime/task.h"

namespace prism::s3 {

class Engine;
class Transfer;

struct HttpOptions {
  client::Peer peer;
  std::optional<client::TlsOptions> tls;  // of https
  client::PoolOptions pool;
  client::TimeoutOptions timeouts;  // `operation`: how long nothing may move while something is waited for
  std::string connect_to;           // "::host:port", where the address's host is not whom to connect to; or empty
};

struct HttpRequest {
  std::string method;
  std::string url;  // path and query encoded
  HeaderList headers;
  std::vector<Bytes> body;
  std::optional<std::uint64_t> fed;  // the body has so many bytes and is given by feed()
};

struct HttpHead {
  int status = 0;
  HeaderList headers;
  const std::string* find(std::string_view name) const;  // null: there is none
};

// One request under way. One call at a time; resumes on the client's loop. When it is destroyed, what is not finished
// is given up, and its connection with it.
//
// The errors of `backends/client/errors.h`: retry is safe where nothing of the request was sent, else unknown_outcome,
// whatever the method.
class Exchange {
 public:
  explicit Exchange(std::shared_ptr<Transfer> transfer) noexcept : transfer_(std::move(transfer)) {}
  ~Exchange();
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;

  Task<Result<HttpHead>> head(Context context);
  // The next piece of the answer's body, at most `max` bytes; empty at its end. What is not read is not received
  // either, but for the window.
  Task<Result<Bytes>> read(Context context, std::size_t max);
  // Waits while more than a piece is unsent. Once the server has answered, or failed, false: see head().
  Task<bool> feed(Context context, Bytes piece);
  // How much of the answer is received ahead of read(); at least a piece (128 KiB), which is what it is without this.
  void set_window(std::size_t bytes) noexcept;

 private:
  std::shared_ptr<Transfer> transfer_;
};

// Any thread. The loop must outlive it and its exchanges.
class HttpClient {
 public:
  HttpClient(EventLoop& loop, HttpOptions options);
  ~HttpClient();  // gives up what is under way, later, on the loop
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  EventLoop& loop() const noexcept { return loop_; }
  // Begins when a connection may be used. BACKEND_OVERLOADED, CANCELLED, DEADLINE_EXCEEDED (safe).
  Task<Result<std::unique_ptr<Exchange>>> begin(Context context, HttpRequest request);
  ConnectionUse use() const noexcept;
  Task<void> close();

 private:
  EventLoop& loop_;
  const std::shared_ptr<Engine> engine_;
};

}  // namespace prism::s3

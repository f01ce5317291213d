// The gRPC server: all client services, health and reflection on one port.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "api/router.h"
#include "api/sessions.h"
#include "base/types.h"
#include "runtime/loop.h"

namespace prism::api {

class CallMetrics;

struct ServerOptions {
  std::string address = "0.0.0.0:8980";                   // host:port; port 0: any free one, see Server::port()
  std::size_t memory_quota = 256UL << 20;                 // bytes of gRPC's own buffers; beyond it clients wait
  Clock::duration drain_grace = std::chrono::seconds(3);  // how long subscribers may settle after they were told to go
  std::size_t max_receive_bytes =
      (16UL << 20) + (64UL << 10);  // larger messages are refused by gRPC (RESOURCE_EXHAUSTED)
};

// Serves from start() until shutdown(). Everything it is given outlives it.
class Server {
 public:
  // ADDRESS_IN_USE, ADDRESS_INVALID.
  static Result<std::unique_ptr<Server>> start(ServerOptions options, const Router& router, Sessions& sessions,
                                               CallMetrics& metrics, Runtime& runtime);
  ~Server();  // shuts down without grace if shutdown() was not called
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  int port() const noexcept;
  // Blocks; not on a loop. Health says NOT_SERVING; streams are told to go and end; new calls are refused; what is
  // still under way after `grace` is cancelled; every request has ended when it returns. Calling it again does nothing.
  void shutdown(Clock::duration grace);
  std::size_t calls_running() const noexcept;
  // What the health service says of "namespace/NAME". One that is not known any more is not serving. Any thread.
  void set_health(const std::string& namespace_name, bool serving);

 private:
  struct Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace prism::api

// The admin HTTP server: metrics, health, and a look at namespaces and jobs. It is meant for operators, not for
// applications, and asks for no credentials to look: it listens on the loopback interface unless it is told otherwise.
// What changes something (POST) asks for the server's admin token (token.h).
//
//   GET  /metrics              Prometheus text format 0.0.4
//   GET  /healthz              200 as long as the process answers
//   GET  /readyz               200 while requests are served, else 503; {"ready", "reason", "namespaces" that are open,
//                              "affected": those that wait for a backend or have one that does not answer}
//   GET  /namespaces           name, client API, chain, consumer groups and notices of each; which backend is served by
//                              what
//   GET  /jobs                 state of each job's shards
//   POST /jobs/pause?name=N    after the present round; 404 JOB_NOT_FOUND
//   POST /jobs/resume?name=N
//   GET  /debug/objects?backend=B[&bucket=C]   {"count", "bytes", "settled"}: the objects that claim checks hold there,
//   and
//                              whether clean-up has caught up with all that was acknowledged
//   GET  /debug/backends                       which answer, since when, their connections, who uses them
//   GET  /debug/inspect?namespace=N            what each pattern holds now
//   GET  /debug/topics?namespace=N             partitions, groups and the last record of each topic
//   GET, POST /v1/config                       see config_routes.h
//
// Errors are {"error": {"code", "reason", "message", "hint"}} with a fitting HTTP status.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "admin/token.h"
#include "base/error.h"
#include "namespaces/live.h"
#include "namespaces/registry.h"
#include "telemetry/metrics.h"

namespace prism::admin {

struct Options {
  std::string host = "127.0.0.1";
  int port = 8981;          // 0: any free one
  std::size_t threads = 8;  // requests at a time, but for those of health
};

// Listens from start() to stop(), so that a process that is still starting, or going down, can be asked about it. Any
// thread.
class Server {
 public:
  // The metrics outlive the server. ADDRESS_IN_USE.
  static Result<std::unique_ptr<Server>> start(Options options, Metrics& metrics);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  int port() const noexcept;
  // From now on requests are served from these namespaces and /readyz says yes.
  void ready(Registry& registry);
  // /readyz says no, with the reason; the registry is still shown.
  void not_ready(std::string reason);
  // From now on the configuration can be looked at and changed (config_routes.h), and jobs paused, until detach().
  void serve_config(LiveFile& file, Token token);
  // Returns when no request uses the registry or the file any more; later ones are told that it is gone.
  void detach();
  void stop();  // joins the threads; a second call does nothing

 private:
  struct Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace prism::admin

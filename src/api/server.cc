#include "api/server.h"

#include <absl/synchronization/mutex.h>
#include <google/protobuf/stubs/logging.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/server_builder.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <mutex>
#include <set>

#include "api/errors.h"
#include "api/methods.h"
#include "api/services.h"
#include "telemetry/log.h"

namespace prism::api {
namespace {

constexpr int kStreamWindowBytes = 4 << 20;

// The library writes a line to the standard error for every text that is not UTF-8: a client must not be able to fill
// the log. It is told what is wrong (REQUEST_MALFORMED).
void keep_protobuf_quiet() {
  google::protobuf::SetLogHandler([](google::protobuf::LogLevel /*level*/, const char* /*file*/, int /*line*/,
                                     const std::string& message) { log::debug("protobuf", {{"error", message}}); });
}

// gRPC only says that it could not listen: ask the system why.
Error why_not(const std::string& address) {
  Error error{Code::invalid_argument,
              "ADDRESS_INVALID",
              "cannot listen on " + address,
              "give host:port, for example 0.0.0.0:8980",
              Retry::never,
              {},
              {{"address", address}}};
  const auto colon = address.rfind(':');
  if (colon == std::string::npos) return error;
  std::string host = address.substr(0, colon);
  if (host.size() >= 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  addrinfo hints{};
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int rc =
          getaddrinfo(host.empty() ? nullptr : host.c_str(), address.substr(colon + 1).c_str(), &hints, &found);
      rc != 0) {
    error.message += ": " + std::string(gai_strerror(rc));
    return error;
  }
  const int socket = ::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int yes = 1;
  setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  int code = 0;
  if (bind(socket, found->ai_addr, found->ai_addrlen) != 0 || listen(socket, 1) != 0) code = errno;
  close(socket);
  freeaddrinfo(found);
  if (code == 0) return error;
  error.message += ": " + std::string(std::strerror(code));
  if (code == EADDRINUSE) {
    error.code = Code::unavailable;
    error.reason = "ADDRESS_IN_USE";
    error.hint = "another program listens there, perhaps another prism; stop it or choose another port with --address";
  }
  return error;
}

}  // namespace

struct Server::Impl {
  Impl(ServerOptions o, const Router& router, Sessions& sessions, CallMetrics& metrics, Runtime& runtime)
      : options(std::move(o)),
        calls{runtime.stalls(), metrics, {}, {}},
        serving{router, sessions, runtime, calls, options.drain_grace},
        services(make_services(serving)) {}

  ServerOptions options;
  Calls calls;
  Serving serving;
  std::vector<std::unique_ptr<grpc::Service>> services;
  NotAvailableService not_available;
  std::unique_ptr<grpc::Server> server;
  int port = 0;
  std::once_flag once;
  std::mutex health_mutex;
  bool health_ended = false;               // guarded by health_mutex
  std::set<std::string> namespaces_shown;  // the same

  void set_health(bool serving_now) {
    const std::lock_guard lock(health_mutex);
    auto* const health = server->GetHealthCheckService();
    health_ended = !serving_now;
    if (!serving_now) {
      for (const auto& name : namespaces_shown) health->SetServingStatus(name, false);
    }
    health->SetServingStatus(serving_now);  // "": the server as a whole
    for (const auto& name : {kPubSubService, kQueueService, kSessionService})
      health->SetServingStatus(std::string(name), serving_now);
  }
};

Result<std::unique_ptr<Server>> Server::start(ServerOptions options, const Router& router, Sessions& sessions,
                                              CallMetrics& metrics, Runtime& runtime) {
  static std::once_flag plugins;
  std::call_once(plugins, [] {
    // gRPC's locks keep a graph of who waits for whom, unless told not to: several percent of a small call's time.
    absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    keep_protobuf_quiet();
  });
  auto impl = std::make_unique<Impl>(std::move(options), router, sessions, metrics, runtime);
  grpc::ServerBuilder builder;
  builder.AddListeningPort(impl->options.address, grpc::InsecureServerCredentials(), &impl->port);
  for (auto& service : impl->services) builder.RegisterService(service.get());
  builder.RegisterCallbackGenericService(&impl->not_available);
  builder.SetMaxReceiveMessageSize(static_cast<int>(impl->options.max_receive_bytes));
  builder.SetMaxSendMessageSize(-1);
  // With it a second server would silently share the port.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  // Nobody asks for gRPC's own call records: the metrics have them.
  builder.AddChannelArgument(GRPC_ARG_ENABLE_CHANNELZ, 0);
  // A client that is gone without a word is noticed; clients may ping as often as usual libraries do.
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 60'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5'000);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  // A fixed window instead of gRPC's probing for one: a stream may have this much on the way, which fills 300 Mbit/s
  // over 100 ms. Probing costs twice the processor time of an upload and grows windows to tens of megabytes that nobody
  // has asked for.
  builder.AddChannelArgument(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, kStreamWindowBytes);
  grpc::ResourceQuota quota("prism");
  quota.Resize(impl->options.memory_quota);
  builder.SetResourceQuota(quota);
  // Only reflection uses gRPC's synchronous machinery: one thread is enough.
  builder.SetSyncServerOption(grpc::ServerBuilder::NUM_CQS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::MIN_POLLERS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::MAX_POLLERS, 1);
  impl->server = builder.BuildAndStart();
  if (impl->server == nullptr || impl->port == 0) {
    if (impl->server != nullptr) impl->server->Shutdown();
    return fail(why_not(impl->options.address));
  }
  impl->set_health(true);
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

void Server::set_health(const std::string& namespace_name, bool serving) {
  const std::lock_guard lock(impl_->health_mutex);
  if (impl_->health_ended) return;
  const std::string name = "namespace/" + namespace_name;
  impl_->namespaces_shown.insert(name);
  impl_->server->GetHealthCheckService()->SetServingStatus(name, serving);
}

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Server::~Server() { shutdown(Clock::duration(0)); }

int Server::port() const noexcept { return impl_->port; }
std::size_t Server::calls_running() const noexcept { return impl_->calls.scope.running(); }

void Server::shutdown(Clock::duration grace) {
  std::call_once(impl_->once, [&] {
    impl_->set_health(false);
    impl_->calls.draining.request_stop();
    impl_->server->Shutdown(std::chrono::system_clock::now() + grace);
    impl_->server->Wait();
    impl_->calls.scope.join_blocking();
  });
}

}  // namespace prism::api

#include "admin/server.h"

#include <httplib.h>
#include <sys/socket.h>

#include <functional>
#include <mutex>
#include <nlohmann/json.hpp>
#include <shared_mutex>
#include <thread>
#include <utility>

#include "admin/answers.h"
#include "admin/config_routes.h"
#include "admin/connections.h"
#include "base/text.h"
#include "runtime/scope.h"

namespace prism::admin {
namespace {

using nlohmann::json;
using namespace std::chrono_literals;

constexpr auto kPatience = 10s;            // of one request for the backends' answers
constexpr auto kLookPatience = 1s;         // of a look at the metrics for what is measured by looking
constexpr std::size_t kListAtOnce = 1000;  // objects of one page

// A request that is read already, and its answer.
class Exchange final : public httplib::Stream {
 public:
  explicit Exchange(std::string_view request) : request_(request) {}
  bool is_readable() const override { return true; }
  bool is_writable() const override { return true; }
  ssize_t read(char* to, std::size_t size) override {
    const auto n = request_.copy(to, size);
    request_.remove_prefix(n);
    return static_cast<ssize_t>(n);
  }
  ssize_t write(const char* from, std::size_t size) override {
    answer.append(from, size);
    return static_cast<ssize_t>(size);
  }
  void get_remote_ip_and_port(std::string& /*ip*/, int& /*port*/) const override {}
  void get_local_ip_and_port(std::string& /*ip*/, int& /*port*/) const override {}
  socket_t socket() const override { return INVALID_SOCKET; }

  std::string answer;

 private:
  std::string_view request_;
};

// The library accepts, parses and routes; sockets are read and written by Connections.
class Http final : public httplib::Server {
 public:
  explicit Http(std::size_t threads)
      : connections_(
            {.body_bytes = config::LoadOptions().max_bytes, .threads = threads},
            [this](std::string_view request) { return serve(request); },
            [](std::string_view line) {
              return line.starts_with("GET /healthz ") || line.starts_with("GET /readyz ");
            }) {
    new_task_queue = [] { return new AtOnce; };
  }
  void close() { connections_.stop(); }

 private:
  // On the thread that accepts: what is to be done there waits for nothing.
  class AtOnce final : public httplib::TaskQueue {
   public:
    void enqueue(std::function<void()> task) override { task(); }
    void shutdown() override {}
  };
  bool process_and_close_socket(socket_t socket) override {
    connections_.take(socket);
    return true;
  }
  std::string serve(std::string_view request) {
    Exchange exchange(request);
    bool closed = false;
    process_request(exchange, true, closed, nullptr);
    return std::move(exchange.answer);
  }

  Connections connections_;
};

Context request_context() { return Context().with_timeout(kPatience); }

json groups_json(const TopicState::Partition& partition) {
  json groups = json::object();
  for (const auto& [group, acked_below] : partition.acked_below) groups[group] = acked_below;
  return groups;
}

json topics_json(const std::vector<TopicState>& topics) {
  json out = json::array();
  for (const auto& topic : topics) {
    json partitions = json::array();
    for (const auto& p : topic.partitions) {
      json partition = {
          {"partition", p.partition}, {"begin", p.begin}, {"end", p.end}, {"acked_below", groups_json(p)}};
      if (p.last) {
        partition["last_record"] = {{"id", p.last->id},
                                    {"key", p.last->key},
                                    {"body_bytes", p.last->body_bytes},
                                    {"record_bytes", p.last->record_bytes}};
      }
      partitions.push_back(std::move(partition));
    }
    out.push_back({{"topic", topic.name}, {"partitions", std::move(partitions)}});
  }
  return out;
}

struct ObjectCount {
  std::uint64_t count = 0;
  std::uint64_t bytes = 0;
};

Task<Result<ObjectCount>> count_objects(Context context, std::shared_ptr<ObjectStore> store) {
  ObjectCount total;
  std::string after;
  for (bool more = true; more;) {
    PRISM_CO_TRY(const auto page, co_await store->list(context, "", after, kListAtOnce));
    for (const auto& object : page) {
      ++total.count;
      total.bytes += object.size;
    }
    more = page.size() == kListAtOnce;
    if (more) after = page.back().key;
  }
  co_return total;
}

Task<Result<json>> objects(Context context, Registry* registry, std::string backend, std::string bucket) {
  const auto stores = registry->object_stores(backend);
  if (stores.empty()) {
    co_return fail(Code::not_found, "BACKEND_NOT_FOUND",
                   "no namespace keeps objects in backend \"" + shown(backend) + "\"",
                   "GET /namespaces lists the backends");
  }
  // Asked before the objects are counted: what is settled by then is not counted any more.
  PRISM_CO_TRY(const bool settled, co_await registry->settled(context));
  ObjectCount total;
  bool found = bucket.empty();
  for (const auto& [name, store] : stores) {
    if (!bucket.empty() && name != bucket) continue;
    found = true;
    PRISM_CO_TRY(const auto counted, co_await count_objects(context, store));
    total.count += counted.count;
    total.bytes += counted.bytes;
  }
  if (!found)
    co_return fail(Code::not_found, "BUCKET_NOT_FOUND",
                   "no namespace keeps objects in bucket \"" + shown(bucket) + "\"");
  co_return json{{"count", total.count}, {"bytes", total.bytes}, {"settled", settled}};
}

Task<Result<json>> inspect(Context context, std::shared_ptr<Namespace> ns) {
  PRISM_CO_TRY(const auto parts, co_await ns->inspect(context));
  json patterns = json::array();
  for (const auto& part : parts) {
    json facts = json::object();
    for (const auto& [name, value] : part.facts) facts[name] = value;
    patterns.push_back({{"pattern", part.pattern}, {"holds", std::move(facts)}});
  }
  co_return json{{"namespace", ns->name()}, {"patterns", std::move(patterns)}};
}

Task<Result<json>> topics(Context context, std::shared_ptr<Namespace> ns) {
  PRISM_CO_TRY(const auto states, co_await ns->topics(context));
  co_return json{{"namespace", ns->name()}, {"topics", topics_json(states)}};
}

json seconds(WallTime time) { return static_cast<double>(time.time_since_epoch().count()) / 1e6; }

json health_json(const NamespaceHealth& ns) {
  json out = {{"name", ns.name}, {"state", to_string(ns.state)}};
  if (ns.state == NamespaceState::ready) return out;
  out["since"] = seconds(ns.since);
  if (!ns.backend.empty()) out["backend"] = ns.backend;
  if (ns.error) {
    out["reason"] = ns.error->reason;
    out["message"] = ns.error->message;
    if (!ns.error->hint.empty()) out["hint"] = ns.error->hint;
  }
  return out;
}

// Of all namespaces that are not as they should be.
json affected_json(const std::vector<NamespaceHealth>& namespaces) {
  json out = json::array();
  for (const auto& ns : namespaces) {
    if (ns.state != NamespaceState::ready) out.push_back(health_json(ns));
  }
  return out;
}

json backends_json(const Registry& registry) {
  json list = json::array();
  for (const auto& backend : registry.backend_states()) {
    json one = {{"name", backend.name},
                {"type", backend.type},
                {"description", backend.description},
                {"up", backend.up},
                {"since", seconds(backend.since)},
                {"namespaces", backend.namespaces}};
    if (backend.asked != WallTime()) {
      one["asked"] = seconds(backend.asked);
      one["took_ms"] = std::chrono::duration<double, std::milli>(backend.took).count();
    }
    if (backend.error) one["error"] = error_json(*backend.error);
    if (const auto& use = backend.connections) {
      one["connections"] = {
          {"idle", use->idle}, {"in_use", use->in_use}, {"connecting", use->connecting}, {"waiting", use->waiting}};
    }
    list.push_back(std::move(one));
  }
  return {{"backends", std::move(list)}};
}

json namespaces_json(const Registry& registry) {
  json list = json::array();
  for (const auto& ns : registry.all()) {
    json notices = json::array();
    for (const auto& notice : ns->notices())
      notices.push_back({{"reason", notice.reason}, {"message", notice.message}, {"hint", notice.hint}});
    list.push_back({{"name", ns->name()},
                    {"client_api", to_string(ns->api())},
                    {"chain", ns->chain()},
                    {"consumer_groups", ns->spec().consumer_groups},
                    {"notices", std::move(notices)}});
  }
  return {{"namespaces", std::move(list)},
          {"affected", affected_json(registry.health())},
          {"backends", registry.bindings()}};
}

json jobs_json(Registry& registry) {
  json list = json::array();
  for (const auto& job : registry.jobs()) {
    list.push_back({{"name", job.name},
                    {"shard", job.shard},
                    {"state", to_string(job.state)},
                    {"rounds", job.rounds},
                    {"items", job.items},
                    {"errors", job.errors},
                    {"last_error", job.last_error},
                    {"harmless", job.harmless}});
  }
  return {{"jobs", std::move(list)}};
}

}  // namespace

struct Server::Impl {
  Impl(Metrics& m, std::size_t threads) : metrics(m), http(threads) {}

  Metrics& metrics;
  Http http;
  int port = 0;
  std::thread listener;

  std::shared_mutex mutex;  // held shared while a request uses the registry
  Registry* registry = nullptr;
  bool is_ready = false;
  std::string reason = "starting";
  ConfigRoutes config;

  void routes();
  // Runs the handler with the registry, or says why there is none.
  template <class Handler>
  auto with_registry(Handler handler) {
    return [this, handler](const httplib::Request& request, httplib::Response& response) {
      const std::shared_lock lock(mutex);
      if (registry == nullptr) {
        return answer(
            response,
            Error{Code::unavailable, "NOT_SERVING", "the server is not serving: " + reason, {}, Retry::safe, {}, {}});
      }
      handler(*registry, request, response);
    };
  }
  template <class Make>
  auto of_namespace(Make make) {
    return with_registry([make](Registry& present, const httplib::Request& request, httplib::Response& response) {
      const std::string name = request.get_param_value("namespace");
      auto ns = present.find(name);
      if (ns == nullptr) {
        return answer(response, Error{Code::not_found,
                                      "NAMESPACE_NOT_FOUND",
                                      "there is no namespace \"" + shown(name) + "\"",
                                      "give it as ?namespace=NAME; GET /namespaces lists them",
                                      Retry::never,
                                      {},
                                      {}});
      }
      const auto made = run_blocking(make(request_context(), std::move(ns)));
      made ? answer(response, *made) : answer(response, made.error());
    });
  }
};

void Server::Impl::routes() {
  http.Get("/metrics", [this](const httplib::Request&, httplib::Response& response) {
    {
      const std::shared_lock lock(mutex);
      if (registry != nullptr) run_blocking(registry->measure(Context().with_timeout(kLookPatience)));
    }
    response.set_content(metrics.expose(), "text/plain; version=0.0.4; charset=utf-8");
  });
  http.Get("/healthz",
           [](const httplib::Request&, httplib::Response& response) { answer(response, json{{"alive", true}}); });
  http.Get("/readyz", [this](const httplib::Request&, httplib::Response& response) {
    const std::shared_lock lock(mutex);
    const auto health = registry != nullptr ? registry->health() : std::vector<NamespaceHealth>();
    json names = json::array();
    bool any = health.empty();
    for (const auto& ns : health) {
      if (ns.state == NamespaceState::waiting) continue;
      names.push_back(ns.name);
      any = true;
    }
    const bool ready = is_ready && any;
    answer(response,
           {{"ready", ready},
            {"reason", is_ready && !any ? "every namespace waits for its backend" : reason},
            {"namespaces", std::move(names)},
            {"affected", affected_json(health)}},
           ready ? 200 : 503);
  });
  http.Get("/debug/backends",
           with_registry([](Registry& present, const httplib::Request&, httplib::Response& response) {
             answer(response, backends_json(present));
           }));
  http.Get("/namespaces", with_registry([](Registry& present, const httplib::Request&, httplib::Response& response) {
             answer(response, namespaces_json(present));
           }));
  http.Get("/jobs", with_registry([](Registry& present, const httplib::Request&, httplib::Response& response) {
             answer(response, jobs_json(present));
           }));
  const auto set_paused = [this](bool paused) {
    return with_registry(
        [this, paused](Registry& present, const httplib::Request& request, httplib::Response& response) {
          if (!config.may_change(request, response)) return;
          const std::string name = request.get_param_value("name");
          const auto done = paused ? present.pause_job(name) : present.resume_job(name);
          done ? answer(response, {{"name", name}, {"paused", paused}}) : answer(response, done.error());
        });
  };
  http.Post("/jobs/pause", set_paused(true));
  http.Post("/jobs/resume", set_paused(false));
  http.Get("/debug/objects",
           with_registry([](Registry& present, const httplib::Request& request, httplib::Response& response) {
             const auto made = run_blocking(objects(request_context(), &present, request.get_param_value("backend"),
                                                    request.get_param_value("bucket")));
             made ? answer(response, *made) : answer(response, made.error());
           }));
  http.Get("/debug/inspect", of_namespace(inspect));
  http.Get("/debug/topics", of_namespace(topics));

  config.add_to(http);

  // What the library says without a body: there is no such path, or it could not read the request.
  http.set_error_handler([](const httplib::Request& request, httplib::Response& response) {
    if (!response.body.empty()) return;
    const int status = response.status;
    const std::string hint = "see docs/reference/admin.md";
    if (status == 404) {
      return answer(response,
                    Error{Code::not_found,
                          "PATH_NOT_FOUND",
                          request.method + " " + shown(request.path) + " is not served here",
                          hint,
                          Retry::never,
                          {},
                          {}},
                    status);
    }
    if (status >= 500) {
      return answer(response,
                    Error{Code::internal,
                          "REQUEST_FAILED",
                          "the request could not be answered",
                          {},
                          Retry::unknown_outcome,
                          {},
                          {}},
                    status);
    }
    answer(
        response,
        Error{Code::invalid_argument, "BAD_REQUEST", "this is no request that can be read", hint, Retry::never, {}, {}},
        status);
  });
}

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Server::~Server() { stop(); }

Result<std::unique_ptr<Server>> Server::start(Options options, Metrics& metrics) {
  auto impl = std::make_unique<Impl>(metrics, options.threads);
  auto& http = impl->http;
  impl->routes();
  // The library's default would share the port with another process that does the same (SO_REUSEPORT).
  http.set_socket_options([](socket_t socket) {
    const int on = 1;
    ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  });
  impl->port = options.port != 0 ? (http.bind_to_port(options.host, options.port) ? options.port : -1)
                                 : http.bind_to_any_port(options.host);
  if (impl->port <= 0) {
    return fail(Code::unavailable, "ADDRESS_IN_USE",
                "cannot listen on " + options.host + ":" + std::to_string(options.port) + " for the admin HTTP server",
                "another program has the port: choose one with --admin-port (0: any free one)");
  }
  impl->listener = std::thread([&http] { http.listen_after_bind(); });
  while (!http.is_running()) std::this_thread::yield();  // stop() needs a server that runs
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

int Server::port() const noexcept { return impl_->port; }

void Server::ready(Registry& registry) {
  const std::unique_lock lock(impl_->mutex);
  impl_->registry = &registry;
  impl_->is_ready = true;
  impl_->reason = "serving";
}

void Server::not_ready(std::string reason) {
  const std::unique_lock lock(impl_->mutex);
  impl_->is_ready = false;
  impl_->reason = std::move(reason);
}

void Server::serve_config(LiveFile& file, Token token) { impl_->config.attach(file, std::move(token)); }

void Server::detach() {
  impl_->config.detach();
  const std::unique_lock lock(impl_->mutex);
  impl_->registry = nullptr;
  impl_->is_ready = false;
}

void Server::stop() {
  if (!impl_->listener.joinable()) return;
  impl_->http.stop();
  impl_->listener.join();
  impl_->http.close();
}

}  // namespace prism::admin

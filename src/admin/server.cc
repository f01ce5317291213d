#include "admin/server.h"

#include <httplib.h>
#include <sys/socket.h>

#include <condition_variable>
#include <functional>
#include <mutex>
#include <nlohmann/json.hpp>
#include <shared_mutex>
#include <thread>
#include <utility>

#include "admin/config_routes.h"
#include "base/text.h"
#include "runtime/scope.h"

namespace prism::admin {
namespace {

using nlohmann::json;
using namespace std::chrono_literals;

constexpr auto kPatience = 10s;            // of one request for the backends' answers
constexpr auto kLookPatience = 1s;         // of a look at the metrics for what is measured by looking
constexpr std::size_t kListAtOnce = 1000;  // objects of one page
constexpr std::string_view kJson = "application/json";

int http_status(Code code) {
  switch (code) {
    case Code::invalid_argument:
    case Code::failed_precondition:
    case Code::out_of_range:
      return 400;
    case Code::not_found:
      return 404;
    case Code::already_exists:
    case Code::aborted:
      return 409;
    case Code::resource_exhausted:
      return 429;
    case Code::unimplemented:
      return 501;
    case Code::unavailable:
      return 503;
    case Code::deadline_exceeded:
      return 504;
    default:
      return 500;
  }
}

void answer(httplib::Response& response, const json& body, int status = 200) {
  response.status = status;
  response.set_content(body.dump(2, ' ', false, json::error_handler_t::replace) + "\n", std::string(kJson));
}

void answer(httplib::Response& response, const Error& error) {
  answer(
      response,
      {{"error",
        {{"code", to_string(error.code)}, {"reason", error.reason}, {"message", error.message}, {"hint", error.hint}}}},
      http_status(error.code));
}

// Threads that serve the newest connection first. One that says nothing holds a thread until its time is over, and
// hundreds of those must not hold up the health check that comes after them.
class NewestFirst final : public httplib::TaskQueue {
 public:
  explicit NewestFirst(std::size_t threads) {
    for (std::size_t i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
  }

  void enqueue(std::function<void()> task) override {
    {
      const std::lock_guard lock(mutex_);
      tasks_.push_back(std::move(task));
    }
    changed_.notify_one();
  }
  // What still waits is run too, which then only closes its connection.
  void shutdown() override {
    {
      const std::lock_guard lock(mutex_);
      ended_ = true;
    }
    changed_.notify_all();
    threads_.clear();
  }

 private:
  void work() {
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [this] { return ended_ || !tasks_.empty(); });
      if (tasks_.empty()) return;
      const std::function<void()> task = std::move(tasks_.back());
      tasks_.pop_back();
      lock.unlock();
      task();
      lock.lock();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::function<void()>> tasks_;  // guarded by mutex_, as below
  bool ended_ = false;
  std::vector<std::jthread> threads_;
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

json namespaces_json(const Registry& registry) {
  json list = json::array();
  for (const auto& ns : registry.all()) {
    list.push_back({{"name", ns->name()},
                    {"client_api", to_string(ns->api())},
                    {"chain", ns->chain()},
                    {"consumer_groups", ns->spec().consumer_groups}});
  }
  return {{"namespaces", std::move(list)}, {"backends", registry.bindings()}};
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
  explicit Impl(Metrics& m) : metrics(m) {}

  Metrics& metrics;
  httplib::Server http;
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
    json names = json::array();
    if (registry != nullptr) {
      for (const auto& ns : registry->all()) names.push_back(ns->name());
    }
    answer(response, {{"ready", is_ready}, {"reason", reason}, {"namespaces", std::move(names)}}, is_ready ? 200 : 503);
  });
  http.Get("/namespaces", with_registry([](Registry& present, const httplib::Request&, httplib::Response& response) {
             answer(response, namespaces_json(present));
           }));
  http.Get("/jobs", with_registry([](Registry& present, const httplib::Request&, httplib::Response& response) {
             answer(response, jobs_json(present));
           }));
  const auto set_paused = [this](bool paused) {
    return with_registry([paused](Registry& present, const httplib::Request& request, httplib::Response& response) {
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

  http.set_error_handler([](const httplib::Request& request, httplib::Response& response) {
    if (!response.body.empty()) return;
    const Code code = response.status == 404   ? Code::not_found
                      : response.status >= 500 ? Code::internal
                                               : Code::invalid_argument;
    const int status = response.status;
    answer(response, Error{code,
                           status == 404 ? "PATH_NOT_FOUND" : "BAD_REQUEST",
                           request.method + " " + shown(request.path) + " is not served here",
                           "see docs/reference/admin.md",
                           Retry::never,
                           {},
                           {}});
    response.status = status;
  });
}

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Server::~Server() { stop(); }

Result<std::unique_ptr<Server>> Server::start(Options options, Metrics& metrics) {
  auto impl = std::make_unique<Impl>(metrics);
  auto& http = impl->http;
  impl->routes();
  http.new_task_queue = [n = options.threads] { return new NewestFirst(n); };
  // A connection occupies a thread as long as it is open: one request each, and no waiting for slow ones.
  http.set_keep_alive_max_count(1);
  http.set_keep_alive_timeout(1);  // seconds until the first byte
  http.set_read_timeout(5s);
  http.set_payload_max_length(config::LoadOptions().max_bytes);
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
}

}  // namespace prism::admin

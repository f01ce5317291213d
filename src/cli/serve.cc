#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "admin/server.h"
#include "admin/token.h"
#include "api/server.h"
#include "api/sessions.h"
#include "base/ids.h"
#include "cli/call_metrics.h"
#include "cli/command.h"
#include "cli/output.h"
#include "cli/registry_router.h"
#include "cli/signals.h"
#include "cli/telemetry.h"
#include "cli/watch.h"
#include "namespaces/live.h"
#include "namespaces/parse.h"
#include "namespaces/registry.h"
#include "runtime/loop.h"
#include "telemetry/log.h"
#include "telemetry/metrics.h"
#include "telemetry/runtime_metrics.h"

namespace prism::cli {
namespace {

constexpr int kGrpcPort = 8980;
constexpr int kAdminPort = 8981;
constexpr auto kOpenPatience = std::chrono::minutes(1);  // for backends to answer at the start
constexpr auto kClosePatience = std::chrono::seconds(10);

struct Options {
  std::string file;
  bool embedded = false;
  bool dev = false;
  std::optional<std::string> host;
  std::optional<int> port, admin_port;
  std::optional<std::string> data;
  std::string ready_file;
  double grace = 10;
  double lease = 10;
  bool watch = false;
  std::vector<std::string> abandon;
  std::optional<log::Level> log_level;
  std::optional<log::Format> log_format;
};

struct Address {
  std::string host;
  int port = 0;
  std::string text() const {
    return (host.find(':') != std::string::npos ? "[" + host + "]" : host) + ":" + std::to_string(port);
  }
  // Where a client on this machine finds it.
  Address reachable() const {
    if (host == "0.0.0.0") return {"127.0.0.1", port};
    return host == "::" ? Address{"::1", port} : *this;
  }
};

Result<Address> parse_address(const std::string& text) {
  const auto colon = text.rfind(':');
  int port = -1;
  if (colon != std::string::npos) {
    const auto digits = std::string_view(text).substr(colon + 1);
    const auto [end, problem] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
    if (problem != std::errc() || end != digits.data() + digits.size() || port > 65535) port = -1;
  }
  if (port < 0)
    return fail(Code::invalid_argument, "ADDRESS_INVALID", "\"" + text + "\" is no address",
                "write HOST:PORT, for example 0.0.0.0:8980");
  std::string host = text.substr(0, colon);
  if (host.size() >= 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  return Address{std::move(host), port};
}

// The command line before the file before the default.
Result<Address> choose(const std::optional<std::string>& in_file, const std::optional<std::string>& host,
                       const std::optional<int>& port, Address fallback) {
  Address address = std::move(fallback);
  if (in_file) {
    PRISM_TRY(address, parse_address(*in_file));
  }
  if (host) address.host = *host;
  if (port) address.port = *port;
  return address;
}

Result<void> write_ready_file(const std::string& path, const Address& grpc, const Address& admin) {
  const std::string text =
      nlohmann::json{{"grpc", grpc.reachable().text()}, {"admin", admin.reachable().text()}, {"pid", ::getpid()}}
          .dump() +
      "\n";
  const std::string partial = path + "." + std::to_string(::getpid()) + ".part";
  {
    std::ofstream out(partial, std::ios::binary | std::ios::trunc);
    out << text;
    out.close();
    if (!out) return fail(Code::unknown, "FILE_UNWRITABLE", "cannot write the ready file " + partial);
  }
  if (::rename(partial.c_str(), path.c_str()) != 0) {
    return fail(Code::unknown, "FILE_UNWRITABLE", "cannot write the ready file " + path + ": " + std::strerror(errno));
  }
  return {};
}

void print_account(const Options& options, const Registry& registry, const Address& grpc, const Address& admin,
                   Clock::duration took) {
  std::string text = fmt::format("prism {}  {}\n", PRISM_VERSION, options.file);
  text += options.embedded ? "\nBackends (embedded twins: files on this machine, synced to disk before an answer)\n"
                           : "\nBackends\n";
  for (const auto& binding : registry.bindings()) text += "  " + binding + "\n";
  text += "\nNamespaces\n";
  for (const auto& ns : registry.all()) {
    std::string chain, groups;
    for (const auto& step : ns->chain()) chain += (chain.empty() ? "" : " -> ") + step;
    for (const auto& group : ns->spec().consumer_groups) groups += (groups.empty() ? "  groups: " : ", ") + group;
    text += fmt::format("  {:<16} {:<8} publish -> {}{}\n", ns->name(), to_string(ns->api()), chain, groups);
  }
  for (const auto& ns : registry.health()) {
    if (ns.state == NamespaceState::waiting)
      text += fmt::format("  {:<16} waits, and opens by itself: {}\n", ns.name, ns.error->message);
  }
  text +=
      fmt::format("\nServing   gRPC {}   admin http://{}   ready in {}\n", grpc.text(), admin.text(), human_time(took));
  fmt::print("{}", text);
  std::fflush(stdout);
}

std::string holder_name() {
  char host[256] = "localhost";
  ::gethostname(host, sizeof host - 1);
  return fmt::format("{}/{}/{}", host, ::getpid(), to_hex(random_id()).substr(0, 8));
}

// A second signal during the shutdown ends the process at once.
class Impatience {
 public:
  explicit Impatience(Signals& signals)
      : signals_(signals), thread_([&signals] {
          auto event = signals.wait();
          while (event == Signals::Event::hangup) event = signals.wait();
          if (event == Signals::Event::signal) ::_exit(130);
        }) {}
  ~Impatience() {
    signals_.wake();
    thread_.join();
  }
  Impatience(const Impatience&) = delete;
  Impatience& operator=(const Impatience&) = delete;

 private:
  Signals& signals_;
  std::thread thread_;
};

// Reloads the file when it is asked to, on a thread of its own: whoever asks goes on listening for signals.
class Reloading {
 public:
  explicit Reloading(LiveFile& file) : file_(file), thread_([this] { work(); }) {}
  ~Reloading() {
    {
      const std::lock_guard lock(mutex_);
      ended_ = true;
    }
    changed_.notify_all();
    file_.stop();
    thread_.join();
  }
  Reloading(const Reloading&) = delete;
  Reloading& operator=(const Reloading&) = delete;

  void ask(ReloadSource source) {
    {
      const std::lock_guard lock(mutex_);
      // A signal asks for more than a look.
      if (asked_ != ReloadSource::signal) asked_ = source;
    }
    changed_.notify_all();
  }

 private:
  void work() {
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [this] { return ended_ || asked_; });
      if (ended_) return;
      const ReloadSource source = *std::exchange(asked_, {});
      lock.unlock();
      file_.reload(source);
      lock.lock();
    }
  }

  LiveFile& file_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<ReloadSource> asked_;  // guarded by mutex_, as below
  bool ended_ = false;
  std::thread thread_;
};

// Until SIGINT or SIGTERM.
void wait_for_the_end(Signals& signals, Reloading& reloading, FileWatch* watch) {
  constexpr auto kQuiet = std::chrono::milliseconds(100);  // a change often comes in several steps
  constexpr auto kLook = std::chrono::seconds(5);          // where the file system reports nothing
  auto look = Clock::now();                                // it may have changed while the server started
  bool noticed = false;                                    // until then the folder need not be listened to
  while (true) {
    const auto event = watch == nullptr ? signals.wait() : signals.wait(look, noticed ? -1 : watch->descriptor());
    if (event == Signals::Event::signal) return;
    if (event == Signals::Event::hangup) reloading.ask(ReloadSource::signal);
    if (watch == nullptr) continue;
    if (event == Signals::Event::readable) {
      noticed = true;
      look = std::min(look, Clock::now() + kQuiet);
    }
    if (Clock::now() >= look) {
      noticed = false;
      watch->drain();
      reloading.ask(ReloadSource::watch);
      look = Clock::now() + kLook;
    }
  }
}

Exit refuse(Error error) {
  if (error.reason == "ADDRESS_IN_USE") {
    error.hint =
        "another program listens there, perhaps another prism: stop it, or choose with --port and --admin-port (0: any "
        "free one)";
  }
  print_error(error);
  // What the surroundings lack is not the file's fault.
  return error.reason == "ADDRESS_IN_USE" || error.reason == "ADDRESS_INVALID" || error.reason == "FILE_UNWRITABLE" ||
                 error.reason == "OTLP_NOT_AVAILABLE"
             ? Exit::unusable
             : Exit::failed;
}

// What was served from this data folder before, where it was something else.
std::optional<FileSpec> served_before(const LastServed& last, const std::string& text, const Options& options) {
  const auto before = last.read();
  if (!before || *before == text) return std::nullopt;
  auto parsed = parse_text(*before, components(), config::LoadOptions().of_file(options.file));
  if (!parsed.ok()) {
    log::error(
        "what was served before cannot be read any more: work that it left behind is not looked for",
        {{"file", last.path()},
         {"error", parsed.diagnostics.to_error().message},
         {"hint", "compare it with the present file: topics, tables and prefixes that are gone may hold messages"}});
    return std::nullopt;
  }
  for (const auto& name : options.abandon) {
    if (parsed.file.find(name) == nullptr)
      log::warn("nothing to abandon: no such namespace was served before", {{"namespace", name}});
  }
  return std::move(parsed.file);
}

Error of_the_start(Error error, const LastServed& last) {
  const auto give_up = error.metadata.find("abandon");
  if (give_up == error.metadata.end()) return error;
  error.hint = "put back what was served before (" + last.path() +
               "), start, let the work be done, and apply the new file then; to give it up: start with " +
               give_up->second;
  return error;
}

Exit serve(const Options& options) {
  const auto begun = Clock::now();
  Signals signals(true);
  auto read = LiveFile::read(options.file, components());
  auto& parsed = read.parsed;
  fmt::print(stderr, "{}", config::format_text(parsed.diagnostics));
  if (!parsed.ok()) return parsed.readable() ? Exit::failed : Exit::unusable;
  const log::Output log_output(log_options(parsed.file.telemetry.logs, options.log_level, options.log_format));
  const telemetry::Spec telemetry = with_environment(parsed.file.telemetry);
  auto grpc_address =
      choose(parsed.file.server.listen, options.host, options.port, {options.dev ? "127.0.0.1" : "0.0.0.0", kGrpcPort});
  if (!grpc_address) return refuse(std::move(grpc_address).error());
  auto admin_address = choose(parsed.file.server.admin, {}, options.admin_port, {"127.0.0.1", kAdminPort});
  if (!admin_address) return refuse(std::move(admin_address).error());

  const std::string data_dir = options.data.value_or(parsed.file.server.data_dir.value_or("prism-data"));
  std::error_code problem;
  std::filesystem::create_directories(data_dir, problem);
  if (problem) {
    return refuse({Code::failed_precondition,
                   "FILE_UNWRITABLE",
                   "cannot make the data folder " + data_dir + ": " + problem.message(),
                   "choose another with --data",
                   Retry::never,
                   {},
                   {}});
  }

  Runtime runtime;
  Metrics metrics;
  const ProcessMetrics process_metrics(metrics);
  const RuntimeMetrics runtime_metrics(metrics, runtime);
  const std::string holder = holder_name();
  const auto tracing = Tracing::start(telemetry, holder, metrics);
  if (!tracing) return refuse(tracing.error());
  auto admin = admin::Server::start({.host = admin_address->host, .port = admin_address->port}, metrics);
  if (!admin) return refuse(std::move(admin).error());
  admin_address->port = (*admin)->port();

  auto token = admin::open_token(data_dir);
  if (!token) return refuse(std::move(token).error());
  const LastServed last_served(data_dir, options.file, options.embedded);
  auto registry = run_blocking(Registry::open(
      Context().with_timeout(kOpenPatience), parsed.file, components(), runtime, metrics,
      {.data_dir = data_dir,
       .embedded = options.embedded,
       .holder = holder,
       .lease_ttl = std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(options.lease)),
       .measured = telemetry.metrics,
       .before = served_before(last_served, read.text, options),
       .abandon = {options.abandon.begin(), options.abandon.end()}}));
  if (!registry) return refuse(of_the_start(std::move(registry).error(), last_served));
  const auto close_registry = [&] {
    (*admin)->detach();
    run_blocking((*registry)->close(Context().with_timeout(kClosePatience)));
  };

  if (auto noted = last_served.write(read.text); !noted) {
    close_registry();
    return refuse(std::move(noted).error());
  }

  const RegistryRouter router(**registry);
  api::Sessions sessions;
  const MetricCallback open_sessions =
      metrics.gauge("prism_sessions", "Sessions that are open.").callback({}, [&sessions] {
        return static_cast<double>(sessions.count());
      });
  const auto call_metrics = telemetry.metrics
                                ? std::unique_ptr<api::CallMetrics>(std::make_unique<PrometheusCallMetrics>(metrics))
                                : std::make_unique<api::NoCallMetrics>();
  auto server = api::Server::start({.address = grpc_address->text()}, router, sessions, *call_metrics, runtime);
  if (!server) {
    close_registry();
    return refuse(std::move(server).error());
  }
  grpc_address->port = (*server)->port();
  (*registry)->on_health([&server = **server, shown = std::set<std::string>()](const auto& namespaces) mutable {
    for (const auto& name : std::exchange(shown, {})) {
      if (std::ranges::find(namespaces, name, &NamespaceHealth::name) == namespaces.end())
        server.set_health(name, false);
    }
    for (const auto& ns : namespaces) {
      server.set_health(ns.name, ns.state != NamespaceState::waiting);
      shown.insert(ns.name);
    }
  });
  (*admin)->ready(**registry);
  LiveFile live(options.file, std::move(read), last_served, components(), **registry, metrics);
  (*admin)->serve_config(live, std::move(*token));
  print_account(options, **registry, *grpc_address, *admin_address, Clock::now() - begun);
  if (!options.ready_file.empty()) {
    if (auto written = write_ready_file(options.ready_file, *grpc_address, *admin_address); !written) {
      (*server)->shutdown({});
      live.stop();
      close_registry();
      return refuse(std::move(written).error());
    }
  }

  {
    std::optional<FileWatch> watch;
    if (options.watch) watch.emplace(options.file);
    Reloading reloading(live);
    wait_for_the_end(signals, reloading, watch ? &*watch : nullptr);
  }
  const Impatience impatience(signals);
  fmt::print("stopping: requests and jobs finish what they have begun (a second signal stops at once)\n");
  std::fflush(stdout);
  (*admin)->not_ready("shutting down");
  // The order matters: nothing new comes in; what is under way ends; then the jobs, chains and backends beneath it.
  (*server)->shutdown(std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(options.grace)));
  close_registry();
  (*admin)->stop();
  if (!options.ready_file.empty()) ::unlink(options.ready_file.c_str());
  fmt::print("stopped\n");
  return Exit::good;
}

CLI::App* add(CLI::App& root, const std::string& name, const std::string& description,
              std::shared_ptr<Options> options) {
  auto* command = root.add_subcommand(name, description);
  command->add_option("FILE", options->file, "The configuration, YAML")->required()->type_name("");
  command
      ->add_option("--host", options->host,
                   options->dev ? "Interface for clients; 127.0.0.1 unless the file says otherwise"
                                : "Interface for clients; 0.0.0.0 unless the file says otherwise")
      ->type_name("HOST");
  command
      ->add_option("--port", options->port,
                   "Port for clients (gRPC); 8980 unless the file says otherwise; 0: any free one")
      ->type_name("PORT")
      ->check(CLI::Range(0, 65535).description(""));
  command
      ->add_option("--admin-port", options->admin_port,
                   "Port of metrics, health and jobs (HTTP); 8981 unless the file says otherwise; 0: any free one")
      ->type_name("PORT")
      ->check(CLI::Range(0, 65535).description(""));
  command
      ->add_option("--data", options->data,
                   "Folder of the embedded backends and the state store; prism-data unless the file says otherwise")
      ->type_name("DIR");
  command
      ->add_flag("--watch,!--no-watch", options->watch,
                 options->dev
                     ? "Take up changes of the file by itself (the default), or only on SIGHUP and prism apply"
                     : "Take up changes of the file by itself, or only on SIGHUP and prism apply (the default)")
      ->type_name("");
  command
      ->add_option("--abandon", options->abandon,
                   "Start although the file was changed while the server was stopped, and this namespace has work "
                   "that would be left behind; may be repeated")
      ->type_name("NAMESPACE");
  command
      ->add_option("--ready-file", options->ready_file,
                   "Written when requests are served: {\"grpc\": \"HOST:PORT\", \"admin\": \"HOST:PORT\", \"pid\": N}")
      ->type_name("FILE");
  command->add_option("--grace", options->grace, "How long requests under way may take after SIGTERM")
      ->type_name("SECONDS")
      ->default_str("10")
      ->check(CLI::Range(0.0, 3600.0).description(""));
  command
      ->add_option("--lease", options->lease,
                   "Background jobs of a process that does not answer for so long go to another one")
      ->type_name("SECONDS")
      ->default_str("10")
      ->check(CLI::Range(1.0, 3600.0).description(""));
  static const std::map<std::string, log::Level> kLevels{{"trace", log::Level::trace}, {"debug", log::Level::debug},
                                                         {"info", log::Level::info},   {"warn", log::Level::warn},
                                                         {"error", log::Level::error}, {"off", log::Level::off}};
  static const std::map<std::string, log::Format> kFormats{
      {"auto", log::Format::automatic}, {"json", log::Format::json}, {"pretty", log::Format::pretty}};
  command
      ->add_option("--log-level", options->log_level,
                   "Least level that is logged (stderr): trace, debug, info, warn, error or off; info unless the file "
                   "says otherwise")
      ->transform(one_of(kLevels))
      ->type_name("LEVEL");
  command
      ->add_option("--log-format", options->log_format,
                   "json, pretty, or auto: pretty on a terminal, else json; auto unless the file says otherwise")
      ->transform(one_of(kFormats))
      ->type_name("FORMAT");
  return command;
}

constexpr const char* kExitCodes =
    "\n\nSIGTERM and SIGINT end it in order: clients are told, requests and jobs finish, everything is on disk.\n"
    "Exit codes: 0 stopped in order; 1 the file is invalid or a backend failed; 2 a file or address cannot be used.";

}  // namespace

void add_serve(CLI::App& root, Run& chosen) {
  auto options = std::make_shared<Options>();
  auto* command = add(root, "serve", "Serve the namespaces of a file with the backends that it configures", options);
  command->add_flag("--embedded", options->embedded, "Bind every backend to its embedded twin, as dev does");
  command->footer(
      std::string(
          "Examples:\n  prism serve production.yaml\n  prism serve quickstart.yaml --embedded --data /var/lib/prism") +
      kExitCodes);
  command->callback([&chosen, options] { chosen = [options] { return serve(*options); }; });
}

void add_dev(CLI::App& root, Run& chosen) {
  auto options = std::make_shared<Options>();
  options->embedded = options->dev = options->watch = true;
  auto* command =
      add(root, "dev", "Serve a file with embedded backends only: nothing else needs to be installed", options);
  command->footer(
      std::string(
          "Every backend of the file is bound to its embedded twin, files below the data folder, with the same\n"
          "behaviour; the account at the start says which.\n\n"
          "Examples:\n  prism dev examples/quickstart.yaml\n  prism dev my.yaml --port 0 --ready-file ready.json "
          "--data /tmp/my") +
      kExitCodes);
  command->callback([&chosen, options] { chosen = [options] { return serve(*options); }; });
}

}  // namespace prism::cli

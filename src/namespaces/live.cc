#include "namespaces/live.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <utility>

#include "base/crc32c.h"
#include "base/text.h"
#include "config/suggestions.h"
#include "runtime/scope.h"
#include "telemetry/log.h"

namespace prism {
namespace {

constexpr Clock::duration kBuildPatience = std::chrono::minutes(1);  // for backends to answer
constexpr Clock::duration kLookPatience = std::chrono::seconds(10);  // of a dry run
constexpr Clock::duration kBusyPatience = std::chrono::seconds(10);  // for the change before
constexpr std::chrono::seconds kBuildAgain{30};
constexpr std::size_t kLoggedOptions = 100;

WallTime now() { return wall_now(); }

Error unwritable(const std::string& path, const std::string& why) {
  return {Code::failed_precondition,
          "FILE_UNWRITABLE",
          "cannot write " + path + ": " + why,
          "change the file where it comes from; the server takes it up by SIGHUP, or by itself with --watch",
          Retry::never,
          {},
          {}};
}

// Makes a file of this content, and syncs it; what is wrong, if anything.
std::optional<std::string> write_file(const std::string& path, const std::string& text, mode_t mode) {
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode);
  if (file < 0) return std::strerror(errno);
  bool good = ::fchmod(file, mode) == 0;
  for (std::size_t at = 0; good && at < text.size();) {
    const auto n = ::write(file, text.data() + at, text.size() - at);
    good = n > 0 || (n < 0 && errno == EINTR);
    if (n > 0) at += static_cast<std::size_t>(n);
  }
  good = good && ::fsync(file) == 0;
  const int code = errno;
  ::close(file);
  if (good) return std::nullopt;
  return std::strerror(code);
}

// So that it is that file after a crash too.
std::optional<std::string> rename_file(const std::string& from, const std::string& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) return std::strerror(errno);
  const auto folder = std::filesystem::path(to).parent_path().string();
  const int file = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (file >= 0) {
    ::fsync(file);
    ::close(file);
  }
  return std::nullopt;
}

}  // namespace

LastServed::LastServed(const std::string& data_dir, const std::string& file, bool embedded) {
  std::error_code problem;
  const auto absolute = std::filesystem::absolute(file, problem).lexically_normal().string();
  char name[64];
  std::snprintf(name, sizeof name, "served-%08x%s.yaml", crc32c(0, absolute), embedded ? "-embedded" : "");
  path_ = (std::filesystem::absolute(data_dir, problem) / name).lexically_normal().string();
}

std::optional<std::string> LastServed::read() const {
  std::ifstream in(path_, std::ios::binary);
  if (!in) return std::nullopt;
  return std::string(std::istreambuf_iterator<char>(in), {});
}

Result<void> LastServed::write(const std::string& text) const {
  const std::string partial = path_ + ".part";
  auto problem = write_file(partial, text, 0600);
  if (!problem) problem = rename_file(partial, path_);
  if (!problem) return {};
  ::unlink(partial.c_str());
  return fail(Code::failed_precondition, "FILE_UNWRITABLE", "cannot write " + path_ + ": " + *problem,
              "the data folder must be writable");
}

std::string_view to_string(ReloadSource source) noexcept {
  switch (source) {
    case ReloadSource::start:
      return "start";
    case ReloadSource::signal:
      return "signal";
    case ReloadSource::watch:
      return "watch";
    case ReloadSource::apply:
      return "apply";
    case ReloadSource::admin:
      return "admin";
  }
  return "start";
}

std::string_view to_string(ReloadResult result) noexcept {
  switch (result) {
    case ReloadResult::replaced:
      return "replaced";
    case ReloadResult::unchanged:
      return "unchanged";
    case ReloadResult::would:
      return "would_replace";
    case ReloadResult::invalid:
      return "invalid";
    case ReloadResult::refused:
      return "refused";
    case ReloadResult::failed:
      return "failed";
  }
  return "failed";
}

// A new content of the file, beside it until it takes its place.
class LiveFile::Writing {
 public:
  static Result<Writing> prepare(const std::string& path, const std::string& text) {
    std::error_code problem;
    const auto target = std::filesystem::canonical(path, problem);  // a link stays, what it names is written
    if (problem) return fail(unwritable(path, problem.message()));
    Writing out;
    out.target_ = target.string();
    out.partial_ = (target.parent_path() / ("." + target.filename().string() + ".part")).string();
    struct stat was{};
    if (::stat(out.target_.c_str(), &was) != 0) return fail(unwritable(path, std::strerror(errno)));
    if (const auto failed = write_file(out.partial_, text, was.st_mode & 07777)) return fail(unwritable(path, *failed));
    return out;
  }
  Writing(Writing&& other) noexcept
      : target_(std::move(other.target_)), partial_(std::exchange(other.partial_, std::string())) {}
  Writing& operator=(Writing&&) = delete;
  ~Writing() {
    if (!partial_.empty()) ::unlink(partial_.c_str());
  }
  Result<void> commit() {
    if (const auto failed = rename_file(partial_, target_)) return fail(unwritable(target_, *failed));
    partial_.clear();
    return {};
  }

 private:
  Writing() = default;
  std::string target_, partial_;
};

LiveFile::Read LiveFile::read(const std::string& path, const Components& components) {
  Read out;
  const auto options = config::LoadOptions().of_file(path);
  auto text = config::read_file(path, options.max_bytes, out.parsed.diagnostics);
  if (!text) return out;
  out.text = std::move(*text);
  out.parsed = parse_text(out.text, components, options);
  return out;
}

LiveFile::LiveFile(std::string path, Read served, LastServed last_served, const Components& components,
                   Registry& registry, Metrics& metrics)
    : path_(std::move(path)),
      last_served_(std::move(last_served)),
      components_(components),
      registry_(registry),
      served_text_(std::move(served.text)),
      served_(std::move(served.parsed.file)),
      tried_(served_text_),
      reloads_(metrics.counter("prism_config_reloads_total",
                               "Attempts to change the configuration of the running server.", {"result"})),
      generation_(
          metrics.gauge("prism_config_generation", "Configurations served since the start, this one included.").with()),
      good_(metrics.gauge("prism_config_last_reload_successful", "1 unless the last attempt to reload has failed.")
                .with()),
      since_(metrics
                 .gauge("prism_config_since_timestamp_seconds",
                        "When the present configuration was taken up, in seconds since 1970.")
                 .with()) {
  for (const auto result : {ReloadResult::replaced, ReloadResult::unchanged, ReloadResult::invalid,
                            ReloadResult::refused, ReloadResult::failed})
    reloads_.with({std::string(to_string(result))});
  status_.since = status_.last.at = now();
  status_.crc32c = crc32c(0, served_text_);
  generation_.set(1);
  good_.set(1);
  since_.set(static_cast<double>(status_.since.time_since_epoch().count()) / 1e6);
}

LiveFile::~LiveFile() = default;

Reload LiveFile::failed(Reload reload, ReloadResult result, Error error) {
  reload.result = result;
  reload.error = std::move(error);
  return finish(std::move(reload));
}

// Notes and says what became of it.
Reload LiveFile::finish(Reload reload) {
  reload.at = now();
  {
    const std::lock_guard lock(mutex_);
    if (reload.result == ReloadResult::replaced) {
      ++status_.generation;
      status_.since = reload.at;
      status_.source = reload.source;
    }
    reload.generation = status_.generation;
    if (reload.dry_run) return reload;
    status_.last = reload;
  }
  reloads_.with({std::string(to_string(reload.result))}).add();
  good_.set(reload.good() ? 1 : 0);
  if (!reload.good()) {
    log::error("the new configuration was not taken up; the present one stays", {{"file", path_},
                                                                                 {"mode", to_string(reload.source)},
                                                                                 {"state", to_string(reload.result)},
                                                                                 {"reason", reload.error->reason},
                                                                                 {"error", reload.error->message},
                                                                                 {"hint", reload.error->hint},
                                                                                 {"version", reload.generation}});
    return reload;
  }
  if (reload.result == ReloadResult::unchanged) {
    log::info("the configuration is as it was",
              {{"file", path_}, {"mode", to_string(reload.source)}, {"version", reload.generation}});
    return reload;
  }
  generation_.set(static_cast<double>(reload.generation));
  since_.set(static_cast<double>(reload.at.time_since_epoch().count()) / 1e6);
  log::info("the configuration was replaced", {{"file", path_},
                                               {"mode", to_string(reload.source)},
                                               {"version", reload.generation},
                                               {"count", reload.changes.size()}});
  std::size_t logged = 0;
  for (const auto& part : reload.changes) {
    if (part.options.empty()) {
      log::info("configuration changed",
                {{"type", to_string(part.part)}, {"name", part.name}, {"state", to_string(part.kind)}});
    }
    for (const auto& option : part.options) {
      if (++logged > kLoggedOptions) break;
      log::info(
          part.needs_restart() ? "configuration changed, with effect from the next start" : "configuration changed",
          {{"type", to_string(part.part)},
           {"name", part.name},
           {"state", to_string(part.kind)},
           {"option", option.option},
           {"value", option.before + " -> " + option.after}});
    }
  }
  for (const auto& left : reload.abandoned) {
    log::warn("unfinished work was abandoned", {{"namespace", left.name}, {"count", left.count}, {"error", left.what}});
  }
  return reload;
}

Reload LiveFile::change(Read read, Reload reload, std::set<std::string> abandon, Writing* writing) {
  reload.diagnostics = read.parsed.diagnostics.shown();
  if (!read.parsed.ok()) {
    Error error = read.parsed.diagnostics.to_error();
    const bool unreadable = read.text.empty() && read.parsed.diagnostics.has("UNREADABLE_FILE");
    return failed(std::move(reload), unreadable ? ReloadResult::failed : ReloadResult::invalid, std::move(error));
  }
  reload.changes = compare(served_, read.parsed.file, components_);
  const bool now = std::ranges::any_of(reload.changes, [](const auto& part) { return !part.needs_restart(); });
  if (reload.dry_run) {
    auto in_the_way = run_blocking(
        registry_.in_the_way(Context::background(stop_.get_token()).with_timeout(kLookPatience), read.parsed.file));
    if (!in_the_way) {
      const std::string& reason = in_the_way.error().reason;
      const bool refused = reason == "TOPIC_PARTITIONS_FIXED" || reason == "NAMESPACE_NOT_READY";
      return failed(std::move(reload), refused ? ReloadResult::refused : ReloadResult::failed,
                    std::move(in_the_way).error());
    }
    reload.in_the_way = std::move(*in_the_way);
    reload.result = reload.changes.empty() ? ReloadResult::unchanged : ReloadResult::would;
    return finish(std::move(reload));
  }
  // A crash between the two is harmless: the one file is served then, and the other is looked through before.
  const auto commit = [this, writing, &text = read.text]() -> Result<void> {
    PRISM_CHECK(last_served_.write(text));
    if (writing == nullptr) return {};
    auto committed = writing->commit();
    if (!committed) {
      if (const auto again = last_served_.write(served_text_); !again)
        log::error("what is served could not be noted",
                   {{"file", last_served_.path()}, {"error", again.error().message}});
    }
    return committed;
  };
  FileSpec next = read.parsed.file;
  if (now) {
    auto replaced =
        run_blocking(registry_.replace(Context::background(stop_.get_token()).with_timeout(kBuildPatience),
                                       std::move(read.parsed.file), {.abandon = std::move(abandon), .commit = commit}));
    if (!replaced) {
      const std::string& reason = replaced.error().reason;
      const bool refused = reason == "NAMESPACE_HAS_WORK" || reason == "NAMESPACE_NOT_READY" ||
                           reason == "TOPIC_PARTITIONS_FIXED" || reason == "FILE_UNWRITABLE";
      return failed(std::move(reload), refused ? ReloadResult::refused : ReloadResult::failed,
                    std::move(replaced).error());
    }
    reload.abandoned = std::move(replaced->abandoned);
  } else if (auto committed = commit(); !committed) {
    return failed(std::move(reload), ReloadResult::refused, std::move(committed).error());
  }
  // What needs a restart stays as it runs, and shows as a difference until then.
  next.server = served_.server;
  next.telemetry = served_.telemetry;
  served_ = std::move(next);
  served_text_ = std::move(read.text);
  {
    const std::lock_guard lock(mutex_);
    status_.crc32c = crc32c(0, served_text_);
  }
  reload.result = now ? ReloadResult::replaced : ReloadResult::unchanged;
  return finish(std::move(reload));
}

Reload LiveFile::reload(ReloadSource source) {
  Reload reload{.source = source};
  const std::lock_guard lock(changing_);
  if (stop_.stop_requested()) {
    reload.result = ReloadResult::failed;
    reload.error = Error{Code::unavailable, "NOT_SERVING", "the server is going down", {}, Retry::never, {}, {}};
    return reload;
  }
  if (source == ReloadSource::watch && status().last.good()) {
    config::Diagnostics unreadable;
    if (config::read_file(path_, config::LoadOptions().max_bytes, unreadable) == tried_) return status().last;
  }
  Read found = read(path_, components_);
  if (source == ReloadSource::watch && tried_ == found.text && !worth_a_try(found)) return status().last;
  tried_ = found.text;
  left_.reset();
  return change(std::move(found), std::move(reload), {}, nullptr);
}

// A file that was not taken up, and is as it was: a refusal holds up publishes for a while, so that it is not repeated
// for nothing.
bool LiveFile::worth_a_try(const Read& read) {
  const Reload last = status().last;
  if (last.good() || !read.parsed.ok()) return false;
  if (last.result == ReloadResult::failed) return now() - last.at > kBuildAgain;
  if (last.error->reason != "NAMESPACE_HAS_WORK") return false;
  const auto in_the_way = run_blocking(
      registry_.in_the_way(Context::background(stop_.get_token()).with_timeout(kLookPatience), read.parsed.file));
  if (!in_the_way) return false;
  std::uint64_t left = 0;
  for (const auto& one : *in_the_way) left += one.count;
  const auto before = std::exchange(left_, left);
  return left == 0 || (before && left < *before);
}

// What is to be abandoned and is not served.
std::optional<Error> LiveFile::unknown(const std::set<std::string>& names) const {
  std::vector<std::string> known;
  for (const auto& ns : served_.namespaces) known.push_back(ns.name);
  for (const auto& name : names) {
    if (std::ranges::find(known, name) != known.end()) continue;
    return Error{Code::not_found,
                 "NAMESPACE_NOT_FOUND",
                 "no namespace \"" + shown(name) + "\" is served whose work could be abandoned",
                 config::suggest(name, known),
                 Retry::never,
                 {},
                 {{"namespace", shown(name)}}};
  }
  return std::nullopt;
}

Reload LiveFile::apply(Apply request) {
  Reload reload{.source = ReloadSource::apply};
  reload.dry_run = request.dry_run;
  const std::unique_lock lock(changing_, kBusyPatience);
  if (!lock.owns_lock() || stop_.stop_requested()) {
    reload.result = ReloadResult::refused;
    reload.error = lock.owns_lock()
                       ? Error{Code::unavailable, "NOT_SERVING", "the server is going down", {}, Retry::never, {}, {}}
                       : Error{Code::aborted,
                               "RELOAD_IN_PROGRESS",
                               "another change of the configuration is under way",
                               "try again when it has ended",
                               Retry::safe,
                               {},
                               {}};
    return reload;
  }
  Read given{.text = std::move(request.text), .parsed = {}};
  auto options = config::LoadOptions().of_file(path_);
  if (!request.name.empty()) options.file_name = request.name;
  given.parsed = parse_text(given.text, components_, options);
  if (auto error = unknown(request.abandon)) return failed(std::move(reload), ReloadResult::refused, std::move(*error));
  if (request.dry_run || !given.parsed.ok())
    return change(std::move(given), std::move(reload), std::move(request.abandon), nullptr);
  config::Diagnostics unreadable;
  const auto present = config::read_file(path_, config::LoadOptions().max_bytes, unreadable);
  if (!present)
    return failed(std::move(reload), ReloadResult::refused, unwritable(path_, unreadable.to_error().message));
  if (*present != served_text_ && *present != given.text) {
    return failed(std::move(reload), ReloadResult::refused,
                  Error{Code::failed_precondition,
                        "FILE_CHANGED",
                        path_ + " was changed and is not what is served; it would be overwritten",
                        "put into that file what is meant, then send SIGHUP or apply that file itself",
                        Retry::never,
                        {},
                        {{"file", path_}}});
  }
  std::optional<Writing> writing;
  if (*present != given.text) {
    auto prepared = Writing::prepare(path_, given.text);
    if (!prepared) return failed(std::move(reload), ReloadResult::refused, std::move(prepared).error());
    writing.emplace(std::move(*prepared));
  }
  const std::string text = given.text;
  Reload done = change(std::move(given), std::move(reload), std::move(request.abandon), writing ? &*writing : nullptr);
  if (done.good()) tried_ = text;
  return done;
}

LiveFile::Status LiveFile::status() const {
  const std::lock_guard lock(mutex_);
  return status_;
}

void LiveFile::stop() {
  stop_.request_stop();
  const std::lock_guard lock(changing_);  // what is under way has ended
}

}  // namespace prism

#include "telemetry/exporter.h"

#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "telemetry/log.h"

namespace prism::trace {
namespace {

constexpr auto kLongestBackoff = std::chrono::seconds(30);

using Make = Exporter* (*)(const Receiver&, std::string& error);

std::filesystem::path program_folder() {
  std::error_code problem;
  return std::filesystem::read_symlink("/proc/self/exe", problem).parent_path();
}

}  // namespace

Result<std::unique_ptr<Exporter>> load_otlp_exporter(const Receiver& receiver) {
  const auto unavailable = [](std::string what) {
    return fail(Code::failed_precondition, "OTLP_NOT_AVAILABLE", std::move(what),
                "install prism_otlp.so beside the program or in ../lib/prism of it, or leave telemetry.traces.endpoint "
                "and OTEL_EXPORTER_OTLP_ENDPOINT out");
  };
  const auto folder = program_folder();
  std::string tried;
  for (const auto& path : {folder / "prism_otlp.so", folder.parent_path() / "lib" / "prism" / "prism_otlp.so"}) {
    if (::access(path.c_str(), R_OK) != 0) {
      tried += (tried.empty() ? "" : ", ") + path.string();
      continue;
    }
    // Never unloaded: its threads and gRPC's end with the process.
    void* const module = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (module == nullptr) return unavailable("cannot load " + path.string() + ": " + ::dlerror());
    const auto* const version = static_cast<const char* const*>(::dlsym(module, "prism_otlp_version"));
    if (version == nullptr || std::string_view(*version) != PRISM_VERSION)
      return unavailable(path.string() + " is not of this version, " PRISM_VERSION);
    const auto make = reinterpret_cast<Make>(::dlsym(module, "prism_otlp_make"));
    std::string error;
    std::unique_ptr<Exporter> exporter(make != nullptr ? make(receiver, error) : nullptr);
    if (exporter == nullptr) return unavailable("the OTLP exporter cannot be made: " + error);
    return exporter;
  }
  return unavailable("the module of the OTLP exporter is missing: " + tried);
}

Receiver make_receiver(const telemetry::Spec& spec, const std::string& instance) {
  Receiver out;
  out.protocol = spec.traces.chosen_protocol();
  out.url = spec.traces.url();
  for (const auto& [name, value] : spec.traces.headers) out.headers.emplace_back(name, value.reveal());
  out.certificate = spec.traces.certificate.value_or("");
  out.gzip = spec.traces.compression == telemetry::Compression::gzip;
  out.timeout = spec.traces.timeout;
  char host[256] = "";
  ::gethostname(host, sizeof host - 1);
  out.resource = {{"service.name", spec.service_name.value_or("prism")},
                  {"service.version", PRISM_VERSION},
                  {"service.instance.id", instance},
                  {"host.name", host},
                  {"process.pid", std::to_string(::getpid())}};
  for (const auto& [name, value] : spec.resource) {
    std::erase_if(out.resource, [&](const auto& present) { return present.first == name; });
    out.resource.emplace_back(name, value);
  }
  return out;
}

Batcher::Batcher(std::unique_ptr<Exporter> exporter, Metrics& metrics, Options options)
    : exporter_(std::move(exporter)),
      options_(std::move(options)),
      exported_(metrics.counter("prism_trace_spans_exported_total", "Spans that a trace receiver has taken.").with()),
      dropped_full_(metrics
                        .counter("prism_trace_spans_dropped_total",
                                 "Spans that were not sent: the queue was full, or the receiver failed.", {"reason"})
                        .with({"queue_full"})),
      dropped_failed_(metrics
                          .counter("prism_trace_spans_dropped_total",
                                   "Spans that were not sent: the queue was full, or the receiver failed.", {"reason"})
                          .with({"export_failed"})),
      queued_(metrics.gauge("prism_trace_spans_queued", "Spans that wait to be sent.")
                  .callback({},
                            [this] {
                              const std::lock_guard lock(mutex_);
                              return static_cast<double>(waiting_.size());
                            })),
      thread_([this] { run(); }) {}

Batcher::~Batcher() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    stop_at_ = std::chrono::steady_clock::now() + options_.patience;
  }
  changed_.notify_one();
  thread_.join();
}

void Batcher::take(Finished span) noexcept {
  try {
    bool ready = false;
    {
      const std::lock_guard lock(mutex_);
      if (stopping_ || waiting_.size() >= options_.queue) {
        dropped_full_.add();
        return;
      }
      waiting_.push_back(std::move(span));
      ready = waiting_.size() == options_.batch;
    }
    if (ready) changed_.notify_one();
  } catch (...) {
    dropped_full_.add();  // no memory: whoever records goes on
  }
}

void Batcher::run() {
  std::vector<Finished> batch;
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait_for(lock, options_.delay, [this] { return stopping_ || waiting_.size() >= options_.batch; });
    if (waiting_.empty()) {
      if (stopping_) return;
      continue;
    }
    if (stopping_ && std::chrono::steady_clock::now() >= stop_at_) {
      dropped_failed_.add(waiting_.size());
      return;
    }
    const auto n = static_cast<std::ptrdiff_t>(std::min(waiting_.size(), options_.batch));
    batch.assign(std::make_move_iterator(waiting_.begin()), std::make_move_iterator(waiting_.begin() + n));
    waiting_.erase(waiting_.begin(), waiting_.begin() + n);
    lock.unlock();
    (send(batch) ? exported_ : dropped_failed_).add(batch.size());
    lock.lock();
  }
}

bool Batcher::send(std::vector<Finished>& batch) {
  auto backoff = options_.first_backoff;
  for (std::size_t attempt = 1;; ++attempt) {
    const std::string error = exporter_->send(batch);
    if (error.empty()) {
      if (attempt > 1) log::info("traces are exported again", {{"url", options_.url}});
      return true;
    }
    log::warn("traces cannot be exported", {{"url", options_.url},
                                            {"reason", "TRACE_EXPORT_FAILED"},
                                            {"error", error},
                                            {"count", batch.size()},
                                            {"attempt", attempt}});
    std::unique_lock lock(mutex_);
    if (attempt >= options_.attempts) return false;
    const auto until = std::chrono::steady_clock::now() + backoff;
    changed_.wait_until(lock, until, [this] { return stopping_; });
    // At the end one more attempt, if there is time for it.
    if (stopping_ && (attempt > 1 || std::chrono::steady_clock::now() >= stop_at_)) return false;
    backoff = std::min<std::chrono::milliseconds>(2 * backoff, kLongestBackoff);
  }
}

}  // namespace prism::trace

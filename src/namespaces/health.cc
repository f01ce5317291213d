#include "namespaces/health.h"

#include <algorithm>
#include <iterator>

#include "config/units.h"
#include "runtime/context.h"
#include "telemetry/log.h"

namespace prism {
namespace {

using namespace std::chrono_literals;

constexpr auto kAskDown = 250ms;        // first pause after a backend was found down
constexpr auto kAskDownMost = 5'000ms;  // the longest

}  // namespace

std::string_view to_string(NamespaceState state) noexcept {
  switch (state) {
    case NamespaceState::ready:
      return "ready";
    case NamespaceState::degraded:
      return "degraded";
    case NamespaceState::waiting:
      return "waiting";
  }
  return "ready";
}

BackendHealth::BackendHealth(std::string backend, Metrics* metrics)
    : backend_(std::move(backend)), metrics_(metrics), since_(wall_now()), backoff_(kAskDown, kAskDownMost) {
  if (metrics_ == nullptr) return;
  up_gauge_ =
      metrics_
          ->gauge("prism_backend_up", "1 while a backend answers when it is asked, 0 while it does not.", {"backend"})
          .held({backend_});
  up_gauge_->set(1);
}

bool BackendHealth::note(const Result<void>& answer, Clock::duration took, Clock::duration ask_again_in) {
  bool changed = false;
  WallTime since;
  {
    const std::lock_guard lock(mutex_);
    changed = answer.has_value() == trouble_.has_value();
    since = since_;
    asked_ = wall_now();
    took_ = took;
    if (changed) since_ = asked_;
    if (answer) {
      trouble_.reset();
      backoff_.reset();
    } else {
      trouble_ = answer.error();
    }
    ask_again_ = Clock::now() + (answer ? ask_again_in : std::min(backoff_.next(), ask_again_in));
  }
  if (!changed) return false;
  if (up_gauge_ != nullptr) up_gauge_->set(answer ? 1 : 0);
  if (answer) {
    log::info("a backend answers again", {{"backend", backend_}, {"age_ms", wall_now() - since}});
  } else {
    log::error("a backend does not answer", {{"backend", backend_},
                                             {"reason", answer.error().reason},
                                             {"error", answer.error().message},
                                             {"hint", answer.error().hint}});
  }
  return true;
}

void BackendHealth::show(const std::optional<ConnectionUse>& use) {
  if (!use || metrics_ == nullptr) return;
  const std::lock_guard lock(mutex_);
  if (connection_gauges_.empty()) {
    const auto family =
        metrics_->gauge("prism_backend_connections",
                        "Connections to a backend by what they do; \"waiting\" are operations that wait for one.",
                        {"backend", "state"});
    for (const char* state : {"idle", "in_use", "connecting", "waiting"})
      connection_gauges_.push_back(family.held({backend_, state}));
  }
  const std::size_t counts[] = {use->idle, use->in_use, use->connecting, use->waiting};
  for (std::size_t i = 0; i < std::size(counts); ++i) connection_gauges_[i]->set(static_cast<double>(counts[i]));
}

void BackendHealth::fill(BackendState& state) const {
  const std::lock_guard lock(mutex_);
  state.up = !trouble_;
  state.error = trouble_;
  state.since = since_;
  state.asked = asked_;
  state.took = took_;
}

std::optional<Error> BackendHealth::trouble() const {
  const std::lock_guard lock(mutex_);
  return trouble_;
}

WallTime BackendHealth::since() const {
  const std::lock_guard lock(mutex_);
  return since_;
}

Clock::time_point BackendHealth::ask_again() const {
  const std::lock_guard lock(mutex_);
  return ask_again_;
}

Task<Result<void>> ask(Context context, std::shared_ptr<OpenBackend> open, Clock::duration patience,
                       Clock::duration every) {
  const auto begun = Clock::now();
  auto answer = co_await open->backend->check(context.with_timeout(patience));
  if (context.stopped()) {
    if (!answer) co_return answer;
    co_return std::unexpected(context.over(false));
  }
  if (!answer && (answer.error().reason == "DEADLINE_EXCEEDED" || answer.error().reason == "CANCELLED")) {
    answer = fail(Error{Code::unavailable,
                        "BACKEND_UNAVAILABLE",
                        "backend \"" + open->name + "\" (" + open->backend->describe() + ") does not answer within " +
                            config::format_duration(patience),
                        "see that it runs and can be reached",
                        Retry::safe,
                        {},
                        {}});
  }
  if (!answer) answer = fail(std::move(answer).error().with("backend", open->name));
  open->health->note(answer, Clock::now() - begun, every);
  co_return answer;
}

bool can_pass(const Error& error) noexcept {
  switch (error.code) {
    case Code::unavailable:
    case Code::deadline_exceeded:
    case Code::resource_exhausted:
    case Code::permission_denied:
    case Code::unauthenticated:
      return true;
    default:
      return error.retry == Retry::safe || error.reason == "BACKEND_AUTHENTICATION_FAILED" ||
             error.reason == "BACKEND_TLS_FAILED" || error.reason == "BACKEND_PROTOCOL_ERROR";
  }
}

}  // namespace prism

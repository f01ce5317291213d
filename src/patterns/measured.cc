#include "patterns/measured.h"

#include <algorithm>
#include <utility>

namespace prism {
namespace {

class MeasuredStep final : public Publisher {
 public:
  MeasuredStep(std::unique_ptr<Publisher> step, std::size_t level, std::shared_ptr<Histogram> own,
               std::shared_ptr<Histogram> whole)
      : step_(std::move(step)),
        level_(std::min(level, StepTimes::kSteps - 1)),
        own_(std::move(own)),
        whole_(std::move(whole)) {}

  Task<Batch<Result<Appended>>> publish(Context context, Batch<Message> messages) override {
    const auto begun = Clock::now();
    auto results = co_await step_->publish(context, std::move(messages));
    const Clock::duration took = Clock::now() - begun;
    Clock::duration below{0};
    if (StepTimes* const steps = context.steps()) {
      using std::chrono::nanoseconds;
      below = nanoseconds(steps->below[level_].exchange(0, std::memory_order_relaxed));
      if (level_ + 1 < StepTimes::kSteps)
        steps->below[level_ + 1].fetch_add(std::chrono::duration_cast<nanoseconds>(took).count(),
                                           std::memory_order_relaxed);
    }
    if (own_ != nullptr) {
      own_->observe(std::max(took - below, Clock::duration::zero()));
      whole_->observe(took);
    }
    co_return results;
  }

 private:
  std::unique_ptr<Publisher> step_;
  const std::size_t level_;
  std::shared_ptr<Histogram> own_, whole_;  // null for the log
};

// A context that comes with steps comes with those of this publish only.
class MeasuredPublisher final : public Publisher {
 public:
  // `steps`: how many measured steps there are inside of it; the outermost one's time is the chain's, and is not
  // taken twice.
  MeasuredPublisher(std::unique_ptr<Publisher> chain, std::size_t steps, std::shared_ptr<Histogram> duration)
      : chain_(std::move(chain)), steps_(steps), duration_(std::move(duration)) {}

  Task<Batch<Result<Appended>>> publish(Context context, Batch<Message> messages) override {
    const Context inside = context.steps() != nullptr ? std::move(context) : context.measured();
    if (steps_ == 0 || steps_ >= StepTimes::kSteps) {
      const auto begun = Clock::now();
      auto results = co_await chain_->publish(inside, std::move(messages));
      duration_->observe(Clock::now() - begun);
      co_return results;
    }
    auto results = co_await chain_->publish(inside, std::move(messages));
    duration_->observe(std::chrono::nanoseconds(inside.steps()->below[steps_].load(std::memory_order_relaxed)));
    co_return results;
  }

 private:
  std::unique_ptr<Publisher> chain_;
  const std::size_t steps_;
  std::shared_ptr<Histogram> duration_;
};

struct Deliveries {
  std::shared_ptr<Gauge> subscriptions;
  std::shared_ptr<Counter> redelivered, acked, nacked, unsettled;
  std::shared_ptr<Histogram> delay;
};

class MeasuredSubscription final : public Subscription {
 public:
  MeasuredSubscription(std::unique_ptr<Subscription> inner, std::shared_ptr<const Deliveries> counted)
      : inner_(std::move(inner)), counted_(std::move(counted)) {
    counted_->subscriptions->add(1);
  }
  ~MeasuredSubscription() override { counted_->subscriptions->add(-1); }

  Task<Result<Batch<Received>>> receive(Context context, std::size_t max, std::size_t max_bytes) override {
    auto batch = co_await inner_->receive(std::move(context), max, max_bytes);
    if (batch && !batch->empty()) {
      const WallTime now = wall_now();
      std::size_t again = 0;
      for (const auto& received : *batch) {
        if (received.attempt > 1) {
          ++again;
        } else {
          counted_->delay->observe(std::max(0.0, std::chrono::duration<double>(now - received.time).count()));
        }
      }
      if (again > 0) counted_->redelivered->add(again);
    }
    co_return batch;
  }

  Task<Batch<Settled>> settle(Context context, Batch<Settle> settles) override {
    std::vector<Settle::Do> asked;
    asked.reserve(settles.size());
    for (const auto& one : settles) asked.push_back(one.what);
    auto settled = co_await inner_->settle(std::move(context), std::move(settles));
    std::size_t acked = 0, nacked = 0, failed = 0;
    for (std::size_t i = 0; i < settled.size(); ++i) {
      if (settled[i] != Settled::ok) {
        ++failed;
      } else if (asked[i] == Settle::Do::ack) {
        ++acked;
      } else if (asked[i] == Settle::Do::nack) {
        ++nacked;
      }
    }
    if (acked > 0) counted_->acked->add(acked);
    if (nacked > 0) counted_->nacked->add(nacked);
    if (failed > 0) counted_->unsettled->add(failed);
    co_return settled;
  }

  Task<void> close(Context context) override { return inner_->close(std::move(context)); }

 private:
  std::unique_ptr<Subscription> inner_;
  std::shared_ptr<const Deliveries> counted_;
};

class MeasuredSubscriber final : public Subscriber {
 public:
  MeasuredSubscriber(std::unique_ptr<Subscriber> inner, std::shared_ptr<const Deliveries> counted)
      : inner_(std::move(inner)), counted_(std::move(counted)) {}
  Task<Result<std::unique_ptr<Subscription>>> subscribe(Context context, GroupSpec spec) override {
    PRISM_CO_TRY(auto made, co_await inner_->subscribe(std::move(context), std::move(spec)));
    co_return std::make_unique<MeasuredSubscription>(std::move(made), counted_);
  }

 private:
  std::unique_ptr<Subscriber> inner_;
  std::shared_ptr<const Deliveries> counted_;
};

}  // namespace

ChainMetrics::ChainMetrics(Metrics& metrics, std::string namespace_name, bool patterns)
    : metrics_(metrics), namespace_name_(std::move(namespace_name)), patterns_(patterns) {}

std::unique_ptr<Publisher> ChainMetrics::step(std::unique_ptr<Publisher> step, std::size_t level,
                                              std::string_view pattern) const {
  if (!patterns_) return step;
  std::shared_ptr<Histogram> own, whole;
  if (!pattern.empty()) {
    const LabelValues labels{namespace_name_, std::string(pattern)};
    own = metrics_
              .histogram("prism_pattern_chain_duration_seconds",
                         "How long publishes spent in a pattern of the chain itself, its backends included and the "
                         "patterns inside of it left out.",
                         {"namespace", "pattern"})
              .held(labels);
    whole = metrics_
                .histogram("prism_pattern_inclusive_duration_seconds",
                           "How long publishes took from a pattern of the chain on, everything inside of it included.",
                           {"namespace", "pattern"})
                .held(labels);
  }
  return std::make_unique<MeasuredStep>(std::move(step), level, std::move(own), std::move(whole));
}

Ports ChainMetrics::chain(Ports ports, std::size_t steps) const {
  const LabelValues labels{namespace_name_};
  const auto counter = [&](const char* name, const char* help) {
    return metrics_.counter(name, help, {"namespace"}).held(labels);
  };
  ports.publish = std::make_unique<MeasuredPublisher>(
      std::move(ports.publish), patterns_ ? steps : 0,
      metrics_
          .histogram("prism_publish_duration_seconds",
                     "How long a namespace's chain took to answer a publish (of one message or a batch): without the "
                     "request's way in and out.",
                     {"namespace"})
          .held(labels));
  auto counted = std::make_shared<Deliveries>();
  counted->subscriptions =
      metrics_.gauge("prism_subscriptions", "Subscriptions that are open.", {"namespace"}).held(labels);
  counted->redelivered =
      counter("prism_messages_redelivered_total",
              "Deliveries that are further attempts, after one that was not acknowledged in time or given back.");
  counted->acked = counter("prism_messages_acked_total", "Deliveries that were acknowledged.");
  counted->nacked = counter("prism_messages_nacked_total", "Deliveries that were given back, to be delivered again.");
  counted->unsettled =
      counter("prism_settles_rejected_total",
              "Acknowledgements, returns and extensions that had no effect: too late, unknown or without an outcome.");
  counted->delay = metrics_
                       .histogram("prism_delivery_delay_seconds",
                                  "From the append of a message to the log to its first delivery to a group.",
                                  {"namespace"}, {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,  0.25, 0.5,   1,
                                                  2.5,   5,      10,    30,   60,    300,  1800, 3600, 21600, 86400})
                       .held(labels);
  ports.subscribe = std::make_unique<MeasuredSubscriber>(std::move(ports.subscribe), std::move(counted));
  return ports;
}

}  // namespace prism

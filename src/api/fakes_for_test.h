// A log in memory behind the API's own interfaces, so that the API is tested without any backend.
#pragma once

#include <algorithm>
#include <atomic>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "api/call_metrics.h"
#include "api/router.h"
#include "base/ids.h"
#include "runtime/loop.h"

namespace prism::api::testing {

struct Stored {
  std::string topic, id, key;
  Headers headers;
  Bytes body;
};

class FakeLog final : public Publisher, public Subscriber {
 public:
  explicit FakeLog(EventLoop& loop) : loop_(loop), changed_(loop) {}

  // Replaces the result of a message, if it gives one. Called with the message's id.
  std::function<std::optional<Error>(const std::string& id)> refuse;
  // Makes the payload that is delivered, instead of the stored bytes.
  std::function<Payload(const Stored&)> payload;
  bool on_loop = false;  // publishes complete on a loop thread, as with a real backend

  std::vector<Stored> stored() {
    const std::lock_guard lock(mutex_);
    return stored_;
  }
  std::size_t count() {
    const std::lock_guard lock(mutex_);
    return stored_.size();
  }
  std::size_t acked() const { return acked_; }
  std::size_t delivered() const { return delivered_; }
  std::size_t open_subscriptions() const { return open_; }
  std::size_t publishes() const { return publishes_; }
  Notifier& changed() { return changed_; }

  Task<Batch<Result<Appended>>> publish(Context context, Batch<Message> messages) override {
    ++publishes_;
    Batch<Result<Appended>> out;
    for (auto& message : messages) {
      if (refuse) {
        if (auto error = refuse(message.id)) {
          out.emplace_back(fail(std::move(*error)));
          continue;
        }
      }
      auto body = co_await message.payload.collect(context, 1UL << 30);
      if (!body) {
        out.emplace_back(fail(std::move(body).error()));
        continue;
      }
      const std::lock_guard lock(mutex_);
      Appended appended{Position(PositionPart{source_, 0, stored_.size()}), Durability::fsync, false};
      stored_.push_back({message.topic, message.id, message.key, std::move(message.headers), std::move(*body)});
      out.emplace_back(std::move(appended));
    }
    if (on_loop) co_await resume_on(loop_);
    changed_.notify();
    co_return out;
  }

  Task<Result<std::unique_ptr<Subscription>>> subscribe(Context /*context*/, GroupSpec spec) override {
    if (spec.group == "refused")
      co_return fail(Code::failed_precondition, "GROUP_NOT_DECLARED", "the group is not declared");
    co_return std::make_unique<FakeSubscription>(*this, std::move(spec));
  }

 private:
  struct Group {
    std::size_t next = 0;
    std::deque<std::pair<std::size_t, std::uint32_t>> again;           // index, attempt
    std::map<std::string, std::pair<std::size_t, std::uint32_t>> out;  // by token
    std::uint64_t tokens = 0;
  };

  class FakeSubscription final : public Subscription {
   public:
    FakeSubscription(FakeLog& log, GroupSpec spec) : log_(log), spec_(std::move(spec)) { ++log_.open_; }
    ~FakeSubscription() override { --log_.open_; }

    Task<Result<Batch<Received>>> receive(Context context, std::size_t max, std::size_t max_bytes) override {
      Batch<Received> out;
      while (true) {
        const auto seen = log_.changed_.version();
        take(out, max, max_bytes);
        if (!out.empty() || Clock::now() >= context.deadline()) co_return out;
        if (context.stop().stop_requested()) co_return fail(context.over(false));
        co_await log_.changed_.wait(
            context, seen, std::min<Clock::duration>(context.deadline() - Clock::now(), std::chrono::hours(1)));
      }
    }
    Task<Batch<Settled>> settle(Context /*context*/, Batch<Settle> settles) override {
      Batch<Settled> out;
      {
        const std::lock_guard lock(log_.mutex_);
        Group& group = log_.groups_[spec_.group];
        for (auto& s : settles) {
          const auto found = group.out.find(s.token);
          if (found == group.out.end()) {
            out.push_back(Settled::stale);
            continue;
          }
          out.push_back(Settled::ok);
          if (s.what == Settle::Do::extend) continue;
          if (s.what == Settle::Do::nack) group.again.emplace_back(found->second.first, found->second.second + 1);
          if (s.what == Settle::Do::ack) ++log_.acked_;
          mine_.erase(std::remove(mine_.begin(), mine_.end(), s.token), mine_.end());
          group.out.erase(found);
        }
      }
      if (log_.on_loop) co_await resume_on(log_.loop_);
      log_.changed_.notify();
      co_return out;
    }
    Task<void> close(Context /*context*/) override {
      {
        const std::lock_guard lock(log_.mutex_);
        Group& group = log_.groups_[spec_.group];
        for (const auto& token : mine_) {
          if (const auto found = group.out.find(token); found != group.out.end()) {
            group.again.emplace_back(found->second.first, found->second.second + 1);
            group.out.erase(found);
          }
        }
      }
      log_.changed_.notify();
      co_return;
    }

   private:
    void take(Batch<Received>& out, std::size_t max, std::size_t max_bytes) {
      const std::lock_guard lock(log_.mutex_);
      Group& group = log_.groups_[spec_.group];
      std::size_t bytes = 0;
      while (out.size() < max) {
        std::pair<std::size_t, std::uint32_t> next;
        const bool redelivery = !group.again.empty();
        if (redelivery) {
          next = group.again.front();
        } else {
          while (group.next < log_.stored_.size() && log_.stored_[group.next].topic != spec_.topic) ++group.next;
          if (group.next >= log_.stored_.size()) return;
          next = {group.next, 1};
        }
        const Stored& stored = log_.stored_[next.first];
        if (!out.empty() && bytes + stored.body.size() > max_bytes) return;
        bytes += stored.body.size();
        if (redelivery) {
          group.again.pop_front();
        } else {
          ++group.next;
        }
        Received r;
        r.token = spec_.group + "/" + std::to_string(group.tokens++);
        r.message.topic = stored.topic;
        r.message.id = stored.id;
        r.message.key = stored.key;
        r.message.headers = stored.headers;
        r.message.payload = log_.payload ? log_.payload(stored) : Payload(stored.body);
        r.at = Position(PositionPart{log_.source_, 0, next.first});
        r.time = wall_now();
        r.attempt = next.second;
        group.out.emplace(r.token, next);
        mine_.push_back(r.token);
        out.push_back(std::move(r));
        ++log_.delivered_;
      }
    }
    FakeLog& log_;
    GroupSpec spec_;
    std::vector<std::string> mine_;
  };

  EventLoop& loop_;
  Notifier changed_;
  const Id128 source_ = random_id();
  std::mutex mutex_;
  std::vector<Stored> stored_;
  std::map<std::string, Group> groups_;
  std::atomic<std::size_t> acked_{0}, delivered_{0}, open_{0}, publishes_{0};
};

// Namespaces: "orders" (pubsub), "jobs" (queue), "users" (keyvalue). "ambiguous" is served by two.
class FakeRouter final : public Router {
 public:
  explicit FakeRouter(FakeLog& log) : log_(log) {}
  Result<Route> resolve(std::string_view bound, std::string_view name) const override {
    const std::string ns(bound.empty() ? name : bound);
    if (ns == "ambiguous") return fail(Code::invalid_argument, "TOPIC_AMBIGUOUS", "several namespaces serve it");
    PRISM_TRY(const auto api, api_of(ns));
    Route route;
    route.publisher = &log_;
    route.subscriber = &log_;
    route.topic = name.empty() ? ns : std::string(name);
    route.api = api;
    route.serves_pubsub = api == "pubsub";
    route.serves_queue = api == "queue" || api == "pubsub";
    route.keeps_call_order = log_.on_loop;
    route.namespace_name = ns;
    return route;
  }
  Result<std::string_view> api_of(std::string_view name) const override {
    if (name == "orders") return "pubsub";
    if (name == "jobs") return "queue";
    if (name == "users") return "keyvalue";
    Error error{Code::not_found,
                "NAMESPACE_NOT_FOUND",
                "there is no namespace '" + std::string(name) + "'",
                "did you mean 'orders'?",
                Retry::never,
                {},
                {{"namespace", std::string(name)}}};
    return fail(std::move(error));
  }

 private:
  FakeLog& log_;
};

class FakeMetrics final : public CallMetrics, public NamespaceCalls {
 public:
  void started(const Method& /*method*/) noexcept override { ++in_flight; }
  void ended(const Method& /*method*/) noexcept override { --in_flight; }
  NamespaceCalls& of(std::string_view namespace_name) noexcept override {
    const std::lock_guard lock(mutex);
    namespaces.insert(std::string(namespace_name));
    return *this;
  }
  void finished(const Method& method, grpc::StatusCode code, std::string_view reason,
                Clock::duration /*took*/) noexcept override {
    const std::lock_guard lock(mutex);
    ++calls[{std::string(method.name), static_cast<int>(code)}];
    if (!reason.empty()) ++reasons[std::string(reason)];
  }
  void refused(const Method& /*method*/, std::string_view reason) noexcept override {
    const std::lock_guard lock(mutex);
    ++refusals[std::string(reason)];
  }
  void published(const Method& /*method*/, std::size_t messages, std::size_t /*bytes*/) noexcept override {
    published_messages += messages;
  }
  void delivered(const Method& /*method*/, std::size_t messages, std::size_t /*bytes*/) noexcept override {
    delivered_messages += messages;
  }
  std::mutex mutex;
  std::map<std::pair<std::string, int>, int> calls;  // guarded by mutex, as are the following
  std::map<std::string, int> reasons, refusals;
  std::set<std::string> namespaces;
  std::atomic<int> in_flight{0};
  std::atomic<std::size_t> published_messages{0}, delivered_messages{0};
};

}  // namespace prism::api::testing

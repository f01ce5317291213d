// The API without a backend: bench_ladder ADDRESS empty|foreign|log. Prints its port, serves until its input ends.
//   empty    every publish completes at once: the cost of the API alone
//   foreign  completes on a thread that is no loop, a batch at a time, as a database client or a writer thread does
//   log      keeps messages in memory for subscribers, which begin at the newest 200,000 messages
// This is what the thread model was chosen by: a request runs on gRPC's thread until it suspends, a foreign thread only
// hands completions to a loop, and the loop resumes whole batches.
#include <condition_variable>
#include <deque>
#include <iostream>
#include <map>
#include <mutex>
#include <string>
#include <thread>

#include "api/call_metrics.h"
#include "api/server.h"
#include "base/ids.h"

namespace {

using namespace prism;

Batch<Result<Appended>> positions(std::size_t n, const Id128& source, std::uint64_t first) {
  Batch<Result<Appended>> out;
  out.reserve(n);
  for (std::size_t i = 0; i < n; ++i)
    out.emplace_back(Appended{Position(PositionPart{source, 0, first + i}), Durability::memory, false});
  return out;
}

class Empty final : public Publisher {
 public:
  Task<Batch<Result<Appended>>> publish(Context context, Batch<Message> messages) override {
    for (auto& message : messages) {
      while (!message.payload.is_inline()) {  // streamed: read to its end
        auto piece = co_await message.payload.next(context, 1UL << 20);
        if (!piece) co_return Batch<Result<Appended>>(messages.size(), fail(std::move(piece).error()));
      }
    }
    co_return positions(messages.size(), source_, next_.fetch_add(messages.size()));
  }

 private:
  const Id128 source_ = random_id();
  std::atomic<std::uint64_t> next_{0};
};

// One thread takes whatever has come, and completes it all with one wake-up of the loop.
class Foreign final : public Publisher {
 public:
  explicit Foreign(EventLoop& loop) : loop_(loop), thread_([this] { work(); }) {}
  ~Foreign() override {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    ready_.notify_one();
    thread_.join();
  }
  Task<Batch<Result<Appended>>> publish(Context /*context*/, Batch<Message> messages) override {
    OneShot<void> shot(&loop_);
    {
      const std::lock_guard lock(mutex_);
      queue_.push_back(&shot);
    }
    ready_.notify_one();
    co_await shot.wait({});
    co_return positions(messages.size(), source_, next_.fetch_add(messages.size()));
  }

 private:
  void work() {
    std::unique_lock lock(mutex_);
    while (true) {
      ready_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
      if (queue_.empty()) return;
      std::vector<OneShot<void>*> taken;
      taken.swap(queue_);
      lock.unlock();
      {
        CompletionBatch batch;
        for (auto* shot : taken) batch.add(shot->complete());
      }
      lock.lock();
    }
  }
  EventLoop& loop_;
  const Id128 source_ = random_id();
  std::atomic<std::uint64_t> next_{0};
  std::mutex mutex_;
  std::condition_variable ready_;
  std::vector<OneShot<void>*> queue_;  // guarded by mutex_
  bool stopping_ = false;              // guarded by mutex_
  std::thread thread_;
};

class Log final : public Publisher, public Subscriber {
 public:
  explicit Log(EventLoop& loop) : changed_(loop) {}
  Task<Batch<Result<Appended>>> publish(Context /*context*/, Batch<Message> messages) override {
    std::uint64_t first = 0;
    const std::size_t n = messages.size();
    {
      const std::lock_guard lock(mutex_);
      first = begin_ + kept_.size();
      for (auto& message : messages) kept_.push_back({std::move(message.id), message.payload.buffered()});
      while (kept_.size() > kKept) {
        kept_.pop_front();
        ++begin_;
      }
    }
    changed_.notify();
    co_return positions(n, source_, first);
  }
  Task<Result<std::unique_ptr<Subscription>>> subscribe(Context /*context*/, GroupSpec /*spec*/) override {
    co_return std::make_unique<Reader>(*this);
  }

 private:
  static constexpr std::size_t kKept = 200'000;
  struct Kept {
    std::string id;
    Bytes body;
  };
  // Goes round and round over what is kept: as many messages as a subscriber wants.
  class Reader final : public Subscription {
   public:
    explicit Reader(Log& log) : log_(log) {}
    Task<Result<Batch<Received>>> receive(Context context, std::size_t max, std::size_t max_bytes) override {
      Batch<Received> out;
      while (true) {
        const auto seen = log_.changed_.version();
        {
          const std::lock_guard lock(log_.mutex_);
          for (std::size_t bytes = 0; out.size() < max && bytes < max_bytes && !log_.kept_.empty();) {
            const Kept& kept = log_.kept_[at_++ % log_.kept_.size()];
            Received& r = out.emplace_back();
            r.token = std::to_string(at_);
            r.message.id = kept.id;
            r.message.payload = Payload(kept.body);
            r.at = Position(PositionPart{log_.source_, 0, at_});
            bytes += kept.body.size();
          }
        }
        if (!out.empty() || Clock::now() >= context.deadline()) co_return out;
        if (context.stop().stop_requested()) co_return fail(context.over(false));
        co_await log_.changed_.wait(context, seen, context.deadline() - Clock::now());
      }
    }
    Task<Batch<Settled>> settle(Context /*context*/, Batch<Settle> settles) override {
      co_return Batch<Settled>(settles.size(), Settled::ok);
    }
    Task<void> close(Context /*context*/) override { co_return; }

   private:
    Log& log_;
    std::uint64_t at_ = 0;
  };

  Notifier changed_;
  const Id128 source_ = random_id();
  std::mutex mutex_;
  std::deque<Kept> kept_;    // guarded by mutex_
  std::uint64_t begin_ = 0;  // guarded by mutex_
};

class OneChain final : public api::Router {
 public:
  OneChain(Publisher& publisher, Subscriber& subscriber) : publisher_(publisher), subscriber_(subscriber) {}
  Result<api::Route> resolve(std::string_view /*bound*/, std::string_view name) const override {
    api::Route route;
    route.publisher = &publisher_;
    route.subscriber = &subscriber_;
    route.topic = std::string(name);
    route.api = "pubsub";
    route.serves_pubsub = true;
    route.keeps_call_order = true;
    route.namespace_name = "bench";
    return route;
  }
  Result<std::string_view> api_of(std::string_view /*name*/) const override { return "pubsub"; }

 private:
  Publisher& publisher_;
  Subscriber& subscriber_;
};

}  // namespace

int main(int argc, char** argv) {
  const std::string mode = argc == 3 ? argv[2] : "";
  if (mode != "empty" && mode != "foreign" && mode != "log") {
    std::cerr << "usage: bench_ladder ADDRESS empty|foreign|log\n";
    return 2;
  }
  Runtime runtime;
  Empty empty;
  Foreign foreign(runtime.next_loop());
  Log log(runtime.next_loop());
  const OneChain router(mode == "empty"     ? static_cast<Publisher&>(empty)
                        : mode == "foreign" ? static_cast<Publisher&>(foreign)
                                            : log,
                        log);
  api::Sessions sessions;
  api::NoCallMetrics metrics;
  auto server = api::Server::start({.address = argv[1]}, router, sessions, metrics, runtime);
  if (!server) {
    std::cerr << server.error().describe() << "\n";
    return 1;
  }
  std::cout << (*server)->port() << std::endl;
  std::string line;
  while (std::getline(std::cin, line)) {
  }
  (*server)->shutdown(std::chrono::seconds(1));
}

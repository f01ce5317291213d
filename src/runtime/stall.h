// StallDetector: finds threads that ought never to block (loops, gRPC threads) and did.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

namespace prism {

// A thread says when it enters and leaves a stretch of work; a watcher looks at all of them and counts and reports each
// stretch longer than `limit` once, also one that never ends. Entering and leaving cost two relaxed stores.
class StallDetector {
 public:
  struct Options {
    std::chrono::milliseconds limit{50};   // a stretch longer than this is a stall
    std::chrono::milliseconds period{20};  // how often the watcher looks
    std::function<void(const std::string& thread, std::chrono::milliseconds so_far)> report;  // on the watcher's thread
  };
  StallDetector() : StallDetector(Options()) {}
  explicit StallDetector(Options options);
  ~StallDetector();
  StallDetector(const StallDetector&) = delete;
  StallDetector& operator=(const StallDetector&) = delete;

  std::uint64_t stalls() const noexcept { return stalls_.load(std::memory_order_relaxed); }

  // RAII: the calling thread works from construction to destruction. Nested ones count as the outermost.
  class Stretch {
   public:
    explicit Stretch(StallDetector& detector) noexcept;
    ~Stretch();
    Stretch(const Stretch&) = delete;
    Stretch& operator=(const Stretch&) = delete;

   private:
    void* slot_;
  };
  static void name_thread(std::string name);  // used in reports; at most 15 bytes are shown by the kernel

 private:
  struct Slot {
    std::atomic<bool> taken{false};
    std::atomic<int> depth{0};                   // written by its thread only
    std::atomic<std::int64_t> entered_ticks{0};  // 0: idle; else the coarse time of entering
    std::atomic<std::int64_t> reported_ticks{0};
    std::string name;  // written before taken is published
  };
  static constexpr std::size_t kSlots = 128;
  Slot* slot_of_this_thread() noexcept;
  void watch();

  Options options_;
  std::array<Slot, kSlots> slots_;
  std::uint64_t generation_;
  std::atomic<std::int64_t> now_ticks_{1};  // advanced by the watcher once a period
  std::atomic<std::uint64_t> stalls_{0};
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;
  std::thread watcher_;
};

}  // namespace prism

// What the claim check measures of a namespace.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "capabilities/object_store.h"
#include "patterns/pattern_metrics.h"

namespace prism::claim_check {

// The bytes that are held now below a prefix. The store knows: it is listed from time to time (the same number in every
// process, also right after a start), a bounded part at a time, and in between what this process stores and removes is
// added and taken off. Not known until the first listing has come to its end. Thread-safe.
class Held {
 public:
  Held();
  explicit Held(const PatternMetrics& metrics);

  void stored(const std::string& key, std::uint64_t bytes);
  void removed(const std::string& key, std::uint64_t bytes);
  // Begins a listing where it is time for one, or goes on with it until the context's deadline.
  Task<Result<void>> count(Context context, std::shared_ptr<ObjectStore> store, std::string prefix);

 private:
  struct Listing {
    std::string after;  // everything up to this key is counted
    std::int64_t bytes = 0;
    std::int64_t objects = 0;
    std::int64_t pages = 0;
  };
  void change(const std::string& key, std::int64_t bytes, std::int64_t objects);

  std::shared_ptr<Gauge> bytes_, objects_;
  std::mutex mutex_;
  std::optional<Listing> listing_;  // guarded by mutex_, as are the following
  bool busy_ = false;               // somebody goes on with it
  Clock::time_point next_{};        // begin of the next one
};

struct Counted {
  Counted() = default;
  explicit Counted(const PatternMetrics& metrics);

  std::shared_ptr<Counter> stored = std::make_shared<Counter>();
  std::shared_ptr<Counter> cleaned = std::make_shared<Counter>();
  std::shared_ptr<Counter> retrieved = std::make_shared<Counter>();
  std::shared_ptr<Held> held = std::make_shared<Held>();
};

// Payloads that were fetched. Every namespace can fetch them, and few do: shown from the first one on.
class Retrieved {
 public:
  explicit Retrieved(PatternMetrics metrics) : metrics_(std::move(metrics)) {}
  void add();

 private:
  const PatternMetrics metrics_;
  std::once_flag once_;
  std::shared_ptr<Counter> counter_;
};

}  // namespace prism::claim_check

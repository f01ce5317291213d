#include "patterns/claim_check/counted.h"

#include <algorithm>

namespace prism::claim_check {
namespace {

constexpr std::size_t kPage = 1000;
constexpr Clock::duration kShortest = std::chrono::seconds(5);
constexpr Clock::duration kForEachPage = std::chrono::seconds(6);  // listings cost money: a million objects take 1000

std::shared_ptr<Counter> retrieved_counter(const PatternMetrics& metrics) {
  return metrics.counter("prism_pattern_claim_check_retrieved_total",
                         "Payloads fetched from the object store to the end, for a delivery.");
}

}  // namespace

Held::Held() : bytes_(std::make_shared<Gauge>()), objects_(std::make_shared<Gauge>()) {}

Held::Held(const PatternMetrics& metrics)
    : bytes_(
          metrics.gauge("prism_pattern_claim_check_storage_bytes",
                        "Bytes of payloads that the object store holds now. Every process shows the same.",
                        {"prism_claim_check_storage_bytes",
                         "Bytes of payloads held now (RFC-009's name of prism_pattern_claim_check_storage_bytes)."})),
      objects_(metrics.gauge("prism_pattern_claim_check_storage_objects",
                             "Payloads that the object store holds now. Every process shows the same.")) {}

void Held::stored(const std::string& key, std::uint64_t bytes) { change(key, static_cast<std::int64_t>(bytes), 1); }
void Held::removed(const std::string& key, std::uint64_t bytes) { change(key, -static_cast<std::int64_t>(bytes), -1); }

void Held::change(const std::string& key, std::int64_t bytes, std::int64_t objects) {
  const std::lock_guard lock(mutex_);
  bytes_->set(std::max(bytes_->value() + static_cast<double>(bytes), 0.0));
  objects_->set(std::max(objects_->value() + static_cast<double>(objects), 0.0));
  if (listing_ && key <= listing_->after) {
    listing_->bytes += bytes;
    listing_->objects += objects;
  }
}

Task<Result<void>> Held::count(Context context, std::shared_ptr<ObjectStore> store, std::string prefix) {
  {
    const std::lock_guard lock(mutex_);
    if (busy_ || (!listing_ && Clock::now() < next_)) co_return {};
    busy_ = true;
    if (!listing_) listing_ = Listing{};
  }
  Result<void> outcome;
  while (outcome && !context.stopped()) {
    std::string after;
    {
      const std::lock_guard lock(mutex_);
      after = listing_->after;
    }
    auto page = co_await store->list(context, prefix, std::move(after), kPage);
    const std::lock_guard lock(mutex_);
    if (!page) {
      outcome = std::unexpected(std::move(page).error());
      break;
    }
    for (const auto& object : *page) listing_->bytes += static_cast<std::int64_t>(object.size);
    listing_->objects += static_cast<std::int64_t>(page->size());
    ++listing_->pages;
    if (!page->empty()) listing_->after = page->back().key;
    if (page->size() == kPage) continue;
    bytes_->set(static_cast<double>(std::max<std::int64_t>(0, listing_->bytes)));
    objects_->set(static_cast<double>(std::max<std::int64_t>(0, listing_->objects)));
    next_ = Clock::now() + std::max<Clock::duration>(kShortest, listing_->pages * kForEachPage);
    listing_.reset();
    break;
  }
  const std::lock_guard lock(mutex_);
  busy_ = false;
  co_return outcome;
}

Counted::Counted(const PatternMetrics& metrics)
    : stored(metrics.counter("prism_pattern_claim_check_stored_total", "Payloads stored in the object store.",
                             {"prism_claim_check_stored_count",
                              "Payloads stored so far (RFC-009's name of prism_pattern_claim_check_stored_total)."})),
      cleaned(metrics.counter("prism_pattern_claim_check_cleanup_success",
                              "Stored payloads deleted: consumed, expired, or never referred to.")),
      retrieved(retrieved_counter(metrics)),
      held(std::make_shared<Held>(metrics)) {}

void Retrieved::add() {
  std::call_once(once_, [this] { counter_ = retrieved_counter(metrics_); });
  counter_->add();
}

}  // namespace prism::claim_check

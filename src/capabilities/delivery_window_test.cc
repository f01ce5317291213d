#include "capabilities/delivery_window.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

namespace prism {
namespace {

TEST(AckSet, IsTheSetOfWhatWasAdded) {
  std::mt19937 random(7);
  for (int round = 0; round < 50; ++round) {
    AckSet acks(10);
    std::set<std::uint64_t> model;
    for (std::uint64_t o = 0; o < 10; ++o) model.insert(o);
    for (int i = 0; i < 200; ++i) {
      const std::uint64_t from = 10 + random() % 100;
      if (random() % 5 == 0) {
        acks.remove(from);
        model.erase(from);
      } else {
        const std::uint64_t to = from + 1 + random() % 4;
        acks.add_range(from, to);
        for (std::uint64_t o = from; o < to; ++o) model.insert(o);
      }
      auto copy = AckSet::decode(acks.below(), acks.encode_ranges());
      ASSERT_TRUE(copy);
      std::uint64_t below = 0;
      while (model.contains(below)) ++below;
      ASSERT_EQ(acks.below(), below);
      for (std::uint64_t o = 0; o < 120; ++o) {
        ASSERT_EQ(acks.contains(o), model.contains(o)) << o;
        ASSERT_EQ(copy->contains(o), model.contains(o)) << o;
      }
    }
  }
  EXPECT_FALSE(AckSet::decode(0, "\x81"));
}

TEST(Progress, IsKeptInFull) {
  Progress p;
  p.acked = AckSet(5);
  p.acked.add_range(8, 11);
  p.delivered_below = 20;
  p.attempts = {{3, 9}, {6, 2}, {12, 300}};
  auto copy = Progress::decode(p.acked.below(), p.acked.encode_ranges(), p.delivered_below, p.encode_attempts());
  ASSERT_TRUE(copy);
  EXPECT_EQ(copy->acked.below(), 5U);
  EXPECT_TRUE(copy->acked.contains(10));
  EXPECT_EQ(copy->attempts,
            (std::map<std::uint64_t, std::uint32_t>{{6, 2}, {12, 300}}));  // what is below the floor is done
}

// A log of random keys, consumed by somebody who acknowledges, nacks, forgets and is cut short at random.
class Simulation {
 public:
  explicit Simulation(unsigned seed) : random_(seed), window_(1, Progress(), limits()) {
    for (int i = 0; i < kRecords; ++i) keys_.push_back(random_() % 6);  // 0: none
  }

  void run() {
    for (int step = 0; step < 100000 && window_.progress().acked.below() < kRecords; ++step) {
      now_ += std::chrono::milliseconds(random_() % 20);
      receive();
      const auto held = in_flight_;
      for (const auto& [offset, serial] : held) {
        switch (random_() % 8) {
          case 0:
            nack(offset, serial);
            break;
          case 1:
            agrees(offset, serial, window_.extend(offset, serial, now_ + std::chrono::milliseconds(30)));
            break;
          case 2:
          case 3:
            break;  // until its deadline
          default:
            ack(offset, serial);
        }
      }
      for (const auto offset : acking_) {
        if (random_() % 4 == 0) {
          window_.cancel_ack(offset, now_);
        } else {
          window_.finish_ack(offset);
          done_.insert(offset);
          in_flight_.erase(offset);
        }
      }
      acking_.clear();
      // Reopened by another owner, with what was kept.
      if (random_() % 100 == 0) {
        const Progress& p = window_.progress();
        auto copy = Progress::decode(p.acked.below(), p.acked.encode_ranges(), p.delivered_below, p.encode_attempts());
        ASSERT_TRUE(copy);
        window_ = DeliveryWindow(window_.epoch() + 1, std::move(*copy), limits());
        in_flight_.clear();
        inherited_below_ = highest_ + 1;
      }
    }
    EXPECT_EQ(window_.progress().acked.below(), static_cast<std::uint64_t>(kRecords));
    EXPECT_EQ(window_.in_flight(), 0U);
    EXPECT_EQ(window_.in_flight_bytes(), 0U);
  }

 private:
  static constexpr int kRecords = 400;
  static constexpr std::size_t kPerKey = 3;
  static DeliveryWindow::Limits limits() {
    return {.max_per_key = kPerKey, .ack_deadline = std::chrono::milliseconds(100)};
  }

  bool is_held(std::uint64_t offset, std::uint32_t serial) const {
    const auto it = in_flight_.find(offset);
    return it != in_flight_.end() && it->second == serial && !acking_.contains(offset);
  }
  // The window knows more: which deadlines have passed. What it takes for held is held here too.
  bool agrees(std::uint64_t offset, std::uint32_t serial, bool held) {
    const bool here = is_held(offset, serial);
    if (held) {
      EXPECT_TRUE(here) << offset;
    } else if (here) {
      take_back(offset);
    }
    return held;
  }
  // What is delivered again takes the later ones of its key with it.
  void take_back(std::uint64_t offset) {
    std::erase_if(in_flight_, [&](const auto& f) {
      return f.first == offset ||
             (keys_[offset] != 0 && f.first > offset && keys_[f.first] == keys_[offset] && !acking_.contains(f.first));
    });
  }
  void ack(std::uint64_t offset, std::uint32_t serial) {
    if (!agrees(offset, serial, window_.begin_ack(offset, serial))) return;
    window_.record_ack(offset);
    acking_.insert(offset);
  }
  void nack(std::uint64_t offset, std::uint32_t serial) {
    const auto due = random_() % 2 == 0 ? Clock::time_point() : Clock::now() + std::chrono::milliseconds(random_() % 3);
    if (agrees(offset, serial, window_.nack(offset, serial, due))) take_back(offset);
  }

  void receive() {
    // The window reads the real clock for delays only, the simulation's for deadlines: both only move on.
    const auto now = std::max(now_, Clock::now());
    now_ = now;
    window_.tick(now);
    ++serial_;
    DeliveryBudget budget{
        .count = 1 + random_() % 20, .bytes = 1000, .credit = 1000, .nothing_in_flight = window_.in_flight() == 0};
    std::vector<DeliveryWindow::Handed> handed;
    std::vector<std::uint64_t> wanted;
    DeliveryBudget copy = budget;
    window_.wanted(copy, now, wanted);
    const std::set<std::uint64_t> at_hand(wanted.begin(), wanted.end());
    window_.deliver_ready(budget, now, serial_, [&](std::uint64_t o) { return at_hand.contains(o); }, handed);
    check(handed);
    handed.clear();
    for (int n = static_cast<int>(random_() % 10); n != 0 && window_.may_fetch() && window_.next_fetch() < kRecords;
         --n) {
      const std::uint64_t offset = window_.next_fetch();
      window_.fetched(offset, keys_[offset], 10, budget, now, serial_, handed);
    }
    check(handed);
    if (const auto [first, last] = std::minmax_element(handed_.begin(), handed_.end()); first != handed_.end()) {
      window_.delivered(*first, *last, now);
    }
    handed_.clear();
  }

  void check(const std::vector<DeliveryWindow::Handed>& handed) {
    for (const auto& h : handed) {
      EXPECT_FALSE(done_.contains(h.offset)) << "delivered after it was acknowledged: " << h.offset;
      // A deadline has passed unseen by the model if it is still held here: then the later ones of its key are void
      // too.
      if (in_flight_.contains(h.offset)) take_back(h.offset);
      EXPECT_EQ(h.attempt == 1, deliveries_[h.offset] == 0 && h.offset >= inherited_below_) << h.offset;
      ++deliveries_[h.offset];
      highest_ = std::max(highest_, h.offset);
      if (keys_[h.offset] != 0) {
        std::size_t of_key = 0;
        for (std::uint64_t o = 0; o < window_.next_fetch(); ++o) {
          if (keys_[o] != keys_[h.offset]) continue;
          if (in_flight_.contains(o)) ++of_key;
          if (o < h.offset) {
            EXPECT_TRUE(done_.contains(o) || in_flight_.contains(o)) << o << " before " << h.offset;
          }
        }
        EXPECT_LT(of_key, kPerKey);
      }
      in_flight_[h.offset] = serial_;
      handed_.push_back(h.offset);
    }
  }

  std::mt19937 random_;
  DeliveryWindow window_;
  std::vector<std::uint64_t> keys_;
  Clock::time_point now_ = Clock::now();
  std::uint32_t serial_ = 0;
  std::map<std::uint64_t, std::uint32_t> in_flight_;  // offset -> serial
  std::set<std::uint64_t> acking_;
  std::set<std::uint64_t> done_;
  std::map<std::uint64_t, int> deliveries_;
  std::vector<std::uint64_t> handed_;
  std::uint64_t highest_ = 0;
  std::uint64_t inherited_below_ = 0;
};

TEST(DeliveryWindow, KeepsTheOrderOfKeysWhateverHappens) {
  for (unsigned seed = 0; seed < 40; ++seed) {
    SCOPED_TRACE(seed);
    Simulation(seed).run();
    if (testing::Test::HasFailure()) return;
  }
}

TEST(DeliveryWindow, RecordsThatAreGoneCountAsDone) {
  DeliveryWindow window(1, Progress(), {});
  DeliveryBudget none;
  std::vector<DeliveryWindow::Handed> handed;
  const auto now = Clock::now();
  EXPECT_FALSE(window.fetched(3, 7, 1, none, now, 1, handed));  // 0 to 2 do not exist any more
  EXPECT_EQ(window.progress().acked.below(), 3U);
  EXPECT_FALSE(window.fetched(4, 7, 1, none, now, 1, handed));
  window.gone(3);
  EXPECT_EQ(window.progress().acked.below(), 4U);
  DeliveryBudget some{.count = 5, .bytes = 10, .credit = 10};
  std::vector<std::uint64_t> wanted;
  EXPECT_TRUE(window.wanted(some, now, wanted));
  EXPECT_EQ(wanted, (std::vector<std::uint64_t>{4}));
  window.gone_below(9);
  EXPECT_EQ(window.next_fetch(), 9U);
  window.gone(4);
  EXPECT_EQ(window.progress().acked.below(), 9U);
  EXPECT_EQ(window.in_flight(), 0U);
}

}  // namespace
}  // namespace prism

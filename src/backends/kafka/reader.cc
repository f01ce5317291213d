#include "backends/kafka/reader.h"

#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "backends/kafka/codec.h"
#include "backends/kafka/errors.h"

namespace prism::kafka {
namespace {

constexpr std::size_t kBufferBytes = 8UL << 20;  // read ahead
constexpr std::chrono::milliseconds kPoll{100};

// A client of librdkafka and the thread that takes its messages. The thread owns both: whoever reads does not wait for
// their end.
class Source {
 public:
  using Item = std::pair<Record, Position>;

  Source(std::shared_ptr<Connection> connection, EventLoop& loop, TopicPtr topic)
      : connection_(std::move(connection)), topic_(std::move(topic)), wake_(loop) {}

  static Result<std::shared_ptr<Source>> open(std::shared_ptr<Connection> connection, EventLoop& loop, TopicPtr topic,
                                              const std::vector<std::pair<std::uint32_t, std::uint64_t>>& from) {
    auto self = std::make_shared<Source>(connection, loop, std::move(topic));
    PRISM_TRY(Conf conf, connection->conf());
    const auto set = [&](const char* name, const char* value) {
      rd_kafka_conf_set(conf.get(), name, value, nullptr, 0);
    };
    set("auto.offset.reset", "earliest");
    set("enable.auto.commit", "false");
    set("enable.auto.offset.store", "false");
    set("queued.max.messages.kbytes", "8192");
    set("fetch.error.backoff.ms", "50");
    set("fetch.wait.max.ms", "500");
    rd_kafka_conf_set_events(conf.get(), RD_KAFKA_EVENT_FETCH | RD_KAFKA_EVENT_ERROR);
    PRISM_TRY(self->client_, connection->make(RD_KAFKA_CONSUMER, std::move(conf)));
    self->queue_.reset(rd_kafka_queue_new(self->client_));
    self->main_.reset(rd_kafka_queue_get_main(self->client_));
    rd_kafka_queue_forward(self->main_.get(), self->queue_.get());
    self->handle_.reset(rd_kafka_topic_new(self->client_, self->topic_->wire.c_str(), nullptr));
    for (const auto& [partition, offset] : from) {
      if (rd_kafka_consume_start_queue(self->handle_.get(), static_cast<std::int32_t>(partition),
                                       static_cast<std::int64_t>(offset), self->queue_.get()) != 0) {
        const auto code = rd_kafka_last_error();
        self->finish();
        return fail(connection->error(code));
      }
      self->started_.push_back(partition);
    }
    connection->threads().start([self] { self->run(); });
    return self;
  }

  void stop() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    room_.notify_all();
    wake_.notify();
  }
  Notifier& wake() noexcept { return wake_; }
  Result<void> admit() const { return connection_->admit(); }

  // What is at hand, at least one record if there is any.
  Result<Batch<Item>> take(std::size_t max_bytes) {
    Batch<Item> out;
    {
      const std::lock_guard lock(mutex_);
      if (stopping_) return fail(Code::failed_precondition, "READER_CLOSED", "this reader has been closed");
      std::size_t bytes = 0;
      while (!items_.empty()) {
        const std::size_t size = record_bytes(items_.front().first);
        if (!out.empty() && bytes + size > max_bytes) break;
        bytes += size;
        buffered_ -= size;
        out.push_back(std::move(items_.front()));
        items_.pop_front();
      }
      if (out.empty() && error_) return fail(*std::exchange(error_, std::nullopt));
    }
    if (!out.empty()) room_.notify_all();
    return out;
  }

 private:
  void run() {
    pthread_setname_np(pthread_self(), "kafka-reader");
    while (true) {
      {
        std::unique_lock lock(mutex_);
        room_.wait_for(lock, kPoll, [&] { return stopping_ || buffered_ < kBufferBytes; });
        stopping_ = stopping_ || connection_->threads().stopping();
        if (stopping_) break;
        if (buffered_ >= kBufferBytes) continue;
      }
      Event event(rd_kafka_queue_poll(queue_.get(), static_cast<int>(kPoll.count())));
      std::vector<Item> got;
      std::size_t bytes = 0;
      for (int n = 0; event != nullptr && n < 1'000 && bytes < kBufferBytes; ++n) {
        handle(event.get(), got, bytes);
        event.reset(rd_kafka_queue_poll(queue_.get(), 0));
      }
      if (event != nullptr) handle(event.get(), got, bytes);
      if (got.empty()) continue;
      {
        const std::lock_guard lock(mutex_);
        buffered_ += bytes;
        for (auto& item : got) items_.push_back(std::move(item));
      }
      wake_.notify();
    }
    wake_.notify();
    for (const std::uint32_t partition : started_)
      rd_kafka_consume_stop(handle_.get(), static_cast<std::int32_t>(partition));
    finish();
  }

  void handle(rd_kafka_event_t* event, std::vector<Item>& got, std::size_t& bytes) {
    switch (rd_kafka_event_type(event)) {
      case RD_KAFKA_EVENT_FETCH:
        while (const rd_kafka_message_t* message = rd_kafka_event_message_next(event)) {
          if (message->err != RD_KAFKA_RESP_ERR_NO_ERROR) continue;
          got.emplace_back(decode_record(*message), topic_->position(static_cast<std::uint32_t>(message->partition),
                                                                     static_cast<std::uint64_t>(message->offset)));
          bytes += record_bytes(got.back().first);
        }
        connection_->answered();
        break;
      case RD_KAFKA_EVENT_ERROR: {
        const auto code = rd_kafka_event_error(event);
        const char* const text = rd_kafka_event_error_string(event);
        connection_->note(code, text != nullptr ? text : "");
        Error error = connection_->error(code, text != nullptr ? text : "");
        if (is_transient(code) || code == RD_KAFKA_RESP_ERR__PARTITION_EOF) break;
        const std::lock_guard lock(mutex_);
        error_ = std::move(error);
        wake_.notify();
        break;
      }
      default:
        break;
    }
  }

  void finish() {
    handle_.reset();
    queue_.reset();
    main_.reset();
    rd_kafka_destroy(client_);
  }

  const std::shared_ptr<Connection> connection_;
  const TopicPtr topic_;
  Notifier wake_;
  rd_kafka_t* client_ = nullptr;
  Queue queue_, main_;
  TopicHandle handle_;
  std::vector<std::uint32_t> started_;

  std::mutex mutex_;
  std::condition_variable room_;
  // All guarded by mutex_.
  std::deque<Item> items_;
  std::size_t buffered_ = 0;
  std::optional<Error> error_;
  bool stopping_ = false;
};

class Reader final : public LogReader {
 public:
  explicit Reader(std::shared_ptr<Source> source) : source_(std::move(source)) {}
  ~Reader() override { source_->stop(); }

  Task<Result<Batch<std::pair<Record, Position>>>> next(Context context, std::size_t max_bytes) override {
    while (true) {
      const std::uint64_t seen = source_->wake().version();
      if (context.stop().stop_requested()) co_return fail(context.over(false));
      auto got = source_->take(max_bytes);
      if (!got || !got->empty()) co_return got;
      PRISM_CO_CHECK(source_->admit());
      const auto now = Clock::now();
      if (now >= context.deadline()) co_return Batch<std::pair<Record, Position>>();
      co_await source_->wake().wait(context, seen, std::min(context.deadline(), now + std::chrono::seconds(1)) - now);
    }
  }
  Task<void> close(Context /*context*/) override {
    source_->stop();
    co_return;
  }

 private:
  const std::shared_ptr<Source> source_;
};

}  // namespace

Result<std::unique_ptr<LogReader>> open_reader(std::shared_ptr<Connection> connection, EventLoop& loop, TopicPtr topic,
                                               std::vector<std::pair<std::uint32_t, std::uint64_t>> from) {
  PRISM_TRY(auto source, Source::open(std::move(connection), loop, std::move(topic), from));
  return std::make_unique<Reader>(std::move(source));
}

}  // namespace prism::kafka

// The load generator: bench_load COMMAND --option value ...; prints one line of JSON.
//   unary     --target T [--echo] --callers 64 --size 1024 --seconds 5
//   stream    --target T [--echo] --batch 256 --size 256 --seconds 5 [--keys 0]
//   subscribe --target T --count 500000 --group g [--credit 100000]
//   upload    --target T [--echo] --bytes 1073741824 [--chunk 1048576]
//   download  --target T --bytes 1073741824 --group g       one event of that size, checksummed
//   fdatasync --folder F --seconds 2                        the median of a 4 KiB append and fdatasync
// Everything but the echo takes --topic (default "bench").
#include <fcntl.h>
#include <grpcpp/grpcpp.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <iostream>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/crc32c.h"
#include "bench/echo.grpc.pb.h"
#include "prism/pubsub/v1/pubsub.grpc.pb.h"

namespace {

using namespace prism::pubsub::v1;
using Clock = std::chrono::steady_clock;

std::map<std::string, std::string> options;
std::string option(const std::string& name, const std::string& fallback) {
  const auto found = options.find(name);
  return found != options.end() ? found->second : fallback;
}
std::size_t number(const std::string& name, std::size_t fallback) {
  const auto found = options.find(name);
  return found != options.end() ? std::stoull(found->second) : fallback;
}

double seconds_since(Clock::time_point begun) { return std::chrono::duration<double>(Clock::now() - begun).count(); }

std::shared_ptr<grpc::Channel> connect() {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  auto channel =
      grpc::CreateCustomChannel(option("target", "127.0.0.1:8980"), grpc::InsecureChannelCredentials(), arguments);
  if (!channel->WaitForConnected(std::chrono::system_clock::now() + std::chrono::seconds(10))) {
    std::cerr << "cannot connect to " << option("target", "") << "\n";
    std::exit(1);
  }
  return channel;
}

void die(const grpc::Status& status) {
  std::cerr << "the call failed: " << status.error_code() << " " << status.error_message() << "\n";
  std::_Exit(1);
}

// Text that does not compress to nothing and is cheap to make.
std::string filler(std::size_t n) {
  std::string out(n, '\0');
  std::uint64_t x = 88172645463325252ULL;
  for (auto& c : out) {
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    c = static_cast<char>('a' + x % 26);
  }
  return out;
}

PublishRequest message(std::size_t size) {
  PublishRequest request;
  request.set_topic(option("topic", "bench"));
  request.set_payload(filler(size));
  return request;
}

class Latch {
 public:
  explicit Latch(std::size_t n) : n_(n) {}
  void count_down() {
    const std::lock_guard lock(mutex_);
    if (--n_ == 0) done_.notify_all();
  }
  void wait() {
    std::unique_lock lock(mutex_);
    done_.wait(lock, [&] { return n_ == 0; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable done_;
  std::size_t n_;
};

// --- unary ---

template <class Stub, class Response>
struct Caller {
  Stub* stub;
  PublishRequest request;
  Clock::time_point until;
  Latch* done;
  std::vector<float> micros;
  std::unique_ptr<grpc::ClientContext> context;
  Response response;
  Clock::time_point begun;

  void next() {
    begun = Clock::now();
    if (begun >= until) return done->count_down();
    context = std::make_unique<grpc::ClientContext>();
    stub->async()->Publish(context.get(), &request, &response, [this](grpc::Status status) {
      if (!status.ok()) die(status);
      micros.push_back(std::chrono::duration<float, std::micro>(Clock::now() - begun).count());
      next();
    });
  }
};

template <class Stub, class Response>
void unary(std::unique_ptr<Stub> stub) {
  const std::size_t callers = number("callers", 64);
  const auto begun = Clock::now();
  const auto until = begun + std::chrono::milliseconds(static_cast<long>(1000 * number("seconds", 5)));
  Latch done(callers);
  std::vector<std::unique_ptr<Caller<Stub, Response>>> all;
  for (std::size_t i = 0; i < callers; ++i) {
    auto caller = std::make_unique<Caller<Stub, Response>>();
    caller->stub = stub.get();
    caller->request = message(number("size", 1024));
    caller->until = until;
    caller->done = &done;
    all.push_back(std::move(caller));
  }
  for (auto& caller : all) caller->next();
  done.wait();
  const double took = seconds_since(begun);
  std::vector<float> micros;
  for (auto& caller : all) micros.insert(micros.end(), caller->micros.begin(), caller->micros.end());
  std::sort(micros.begin(), micros.end());
  const auto at = [&](double q) {
    return micros.empty() ? 0.0F : micros[static_cast<std::size_t>(q * static_cast<double>(micros.size() - 1))];
  };
  std::printf("{\"rate\": %.0f, \"p50_us\": %.0f, \"p99_us\": %.0f}\n", static_cast<double>(micros.size()) / took,
              at(0.5), at(0.99));
}

// --- stream ---

inline std::size_t messages_in(const PublishStreamRequest& frame) {
  return static_cast<std::size_t>(frame.messages_size());
}
inline std::size_t messages_in(const PublishStreamResponse& frame) {
  for (const auto& result : frame.results()) {
    if (!result.has_response()) {
      std::cerr << "a message failed: " << result.error().reason() << ": " << result.error().message() << "\n";
      std::_Exit(1);
    }
  }
  return static_cast<std::size_t>(frame.results_size());
}

template <class Response>
class Streamer final : public grpc::ClientBidiReactor<PublishStreamRequest, Response> {
 public:
  Streamer(PublishStreamRequest frame, Clock::time_point until) : frame_(std::move(frame)), until_(until), done_(1) {}
  void start() {
    this->StartRead(&response_);
    this->StartWrite(&frame_);
    this->StartCall();
  }
  void OnWriteDone(bool ok) override {
    if (!ok) return;
    sent_ += static_cast<std::size_t>(frame_.messages_size());
    if (Clock::now() < until_) {
      this->StartWrite(&frame_);
    } else {
      this->StartWritesDone();
    }
  }
  void OnReadDone(bool ok) override {
    if (!ok) return;
    received_ += messages_in(response_);
    this->StartRead(&response_);
  }
  void OnDone(const grpc::Status& status) override {
    if (!status.ok()) die(status);
    done_.count_down();
  }
  std::size_t wait() {
    done_.wait();
    return received_;
  }
  std::size_t sent() const { return sent_; }
  grpc::ClientContext context;

 private:
  PublishStreamRequest frame_;
  Response response_;
  Clock::time_point until_;
  std::size_t sent_ = 0;
  std::size_t received_ = 0;
  Latch done_;
};

template <class Response, class Stub>
void stream(std::unique_ptr<Stub> stub) {
  PublishStreamRequest frame;
  const std::size_t keys = number("keys", 0);
  for (std::size_t i = 0; i < number("batch", 256); ++i) {
    *frame.add_messages() = message(number("size", 256));
    if (keys > 0) frame.mutable_messages(static_cast<int>(i))->set_ordering_key("key-" + std::to_string(i % keys));
  }
  const auto begun = Clock::now();
  Streamer<Response> streamer(std::move(frame), begun + std::chrono::seconds(number("seconds", 5)));
  stub->async()->PublishStream(&streamer.context, &streamer);
  streamer.start();
  const std::size_t n = streamer.wait();
  if (n != streamer.sent()) {
    std::cerr << "sent " << streamer.sent() << " messages, got " << n << " results\n";
    std::_Exit(1);
  }
  const double took = seconds_since(begun);
  std::printf("{\"rate\": %.0f, \"messages\": %zu, \"frame_bytes\": %zu}\n", static_cast<double>(n) / took, n,
              number("batch", 256) * number("size", 256));
}

// --- subscribe ---

class Consumer final : public grpc::ClientBidiReactor<SubscribeStreamRequest, SubscribeStreamResponse> {
 public:
  explicit Consumer(std::size_t count) : count_(count), done_(1) {
    auto* const open = writing_.mutable_open();
    open->set_topic(option("topic", "bench"));
    open->set_group(option("group", "bench"));
    open->set_max_messages(static_cast<std::uint32_t>(number("credit", 100'000)));
    open->set_max_bytes(256U << 20);
  }
  void start() {
    StartRead(&response_);
    StartWrite(&writing_);
    StartCall();
  }
  void OnWriteDone(bool ok) override {
    const std::lock_guard lock(mutex_);
    busy_ = false;
    if (ok) write();
  }
  void OnReadDone(bool ok) override {
    if (!ok) return;
    {
      const std::lock_guard lock(mutex_);
      if (response_.has_events()) {
        for (auto& event : *response_.mutable_events()->mutable_events()) {
          ++received_;
          bytes_ += event.payload().size();
          tokens_.push_back(std::move(*event.mutable_ack_token()));
        }
      }
      for (const auto& result : response_.settled().results()) {
        if (result.status() == SubscribeStreamResponse::Settled::STATUS_OK) ++acked_;
      }
      if (received_ > 0 && first_ == Clock::time_point()) first_ = Clock::now();
      write();
    }
    if (response_.has_settled() && acked_ >= count_) {
      last_ = Clock::now();
      context.TryCancel();
      return;
    }
    StartRead(&response_);
  }
  void OnDone(const grpc::Status& status) override {
    if (!status.ok() && acked_ < count_) die(status);
    done_.count_down();
  }
  void wait() { done_.wait(); }
  void report(Clock::time_point begun) const {
    const double took = std::chrono::duration<double>(last_ - begun).count();
    std::printf("{\"rate\": %.0f, \"messages\": %zu, \"bytes_per_second\": %.0f}\n", static_cast<double>(acked_) / took,
                acked_, static_cast<double>(bytes_) / took);
  }
  grpc::ClientContext context;

 private:
  void write() {  // with mutex_
    if (busy_ || tokens_.empty()) return;
    writing_.Clear();
    for (std::size_t i = 0; i < 5000 && !tokens_.empty(); ++i) {
      writing_.mutable_ack()->add_ack_tokens(std::move(tokens_.front()));
      tokens_.pop_front();
    }
    busy_ = true;
    StartWrite(&writing_);
  }
  std::size_t count_;
  std::mutex mutex_;
  SubscribeStreamRequest writing_;
  SubscribeStreamResponse response_;
  std::deque<std::string> tokens_;
  bool busy_ = true;  // `open` is under way
  std::size_t received_ = 0, acked_ = 0, bytes_ = 0;
  Clock::time_point first_, last_;
  Latch done_;
};

void subscribe() {
  auto stub = PubSubService::NewStub(connect());
  Consumer consumer(number("count", 500'000));
  const auto begun = Clock::now();
  stub->async()->SubscribeStream(&consumer.context, &consumer);
  consumer.start();
  consumer.wait();
  consumer.report(begun);
}

// --- upload, download ---

template <class Stub>
void upload(std::unique_ptr<Stub> stub) {
  const std::size_t bytes = number("bytes", 1UL << 30);
  const std::size_t chunk_bytes = number("chunk", 1UL << 20);
  PublishPayloadRequest chunk;
  chunk.set_chunk(filler(chunk_bytes));
  // The checksum of a client that reads from a file; it is part of what a client must do, the echo's too.
  std::uint32_t crc = 0;
  grpc::ClientContext context;
  PublishResponse response;
  const auto begun = Clock::now();
  auto writer = stub->PublishPayload(&context, &response);
  PublishPayloadRequest frame;
  frame.mutable_header()->set_topic(option("topic", "bench"));
  frame.mutable_header()->set_size(bytes);
  writer->Write(frame);
  for (std::size_t sent = 0; sent < bytes;) {
    if (bytes - sent < chunk_bytes) chunk.mutable_chunk()->resize(bytes - sent);
    crc = prism::crc32c(crc, chunk.chunk());
    if (!writer->Write(chunk)) break;
    sent += chunk.chunk().size();
  }
  frame.mutable_trailer()->set_size(bytes);
  frame.mutable_trailer()->set_crc32c(crc);
  writer->Write(frame);
  writer->WritesDone();
  const auto status = writer->Finish();
  if (!status.ok()) die(status);
  std::printf("{\"mib_per_second\": %.1f, \"seconds\": %.2f}\n",
              static_cast<double>(bytes) / (1 << 20) / seconds_since(begun), seconds_since(begun));
}

void download() {
  const std::size_t bytes = number("bytes", 1UL << 30);
  auto stub = PubSubService::NewStub(connect());
  grpc::ClientContext context;
  SubscribeRequest request;
  request.set_topic(option("topic", "bench"));
  request.set_group(option("group", "bench"));
  const auto begun = Clock::now();
  auto reader = stub->Subscribe(&context, request);
  std::size_t received = 0;
  std::uint32_t crc = 0;
  Event event;
  while (received < bytes && reader->Read(&event)) {
    received += event.payload().size();
    crc = prism::crc32c(crc, event.payload());
    if (event.has_error()) {
      std::cerr << "the event has an error: " << event.error().reason() << "\n";
      std::_Exit(1);
    }
  }
  const double took = seconds_since(begun);
  const bool whole = received == bytes && (!event.part().has_crc32c() || event.part().crc32c() == crc);
  context.TryCancel();
  (void)reader->Finish();
  if (!whole) {
    std::cerr << "the payload did not arrive whole\n";
    std::_Exit(1);
  }
  std::printf("{\"mib_per_second\": %.1f, \"seconds\": %.2f}\n", static_cast<double>(bytes) / (1 << 20) / took, took);
}

void measure_fdatasync() {
  const std::string path = option("folder", ".") + "/fdatasync";
  const int fd = open(path.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
  const std::string block = filler(4096);
  std::vector<double> micros;
  const auto begun = Clock::now();
  while (seconds_since(begun) < static_cast<double>(number("seconds", 2))) {
    const auto from = Clock::now();
    if (write(fd, block.data(), block.size()) < 0 || fdatasync(fd) != 0) std::abort();
    micros.push_back(1e6 * seconds_since(from));
  }
  close(fd);
  unlink(path.c_str());
  std::sort(micros.begin(), micros.end());
  std::printf("{\"p50_us\": %.0f, \"p99_us\": %.0f}\n", micros[micros.size() / 2], micros[micros.size() * 99 / 100]);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::cerr << "usage: bench_load unary|stream|subscribe|upload|download|fdatasync [--option value]...\n";
    return 2;
  }
  const std::string command = argv[1];
  for (int i = 2; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--echo") {
      options["echo"] = "1";
    } else if (name.starts_with("--") && i + 1 < argc) {
      options[name.substr(2)] = argv[++i];
    } else {
      std::cerr << "what is " << name << "?\n";
      return 2;
    }
  }
  const bool echo = options.contains("echo");
  if (command == "unary" && echo) {
    unary<prism::bench::Echo::Stub, PublishRequest>(prism::bench::Echo::NewStub(connect()));
  } else if (command == "unary") {
    unary<PubSubService::Stub, PublishResponse>(PubSubService::NewStub(connect()));
  } else if (command == "stream" && echo) {
    stream<PublishStreamRequest>(prism::bench::Echo::NewStub(connect()));
  } else if (command == "stream") {
    stream<PublishStreamResponse>(PubSubService::NewStub(connect()));
  } else if (command == "subscribe") {
    subscribe();
  } else if (command == "upload" && echo) {
    upload(prism::bench::Echo::NewStub(connect()));
  } else if (command == "upload") {
    upload(PubSubService::NewStub(connect()));
  } else if (command == "download") {
    download();
  } else if (command == "fdatasync") {
    measure_fdatasync();
  } else {
    std::cerr << "there is no command " << command << "\n";
    return 2;
  }
}

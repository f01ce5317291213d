#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "base/base64.h"
#include "base/crc32c.h"
#include "base/types.h"
#include "cli/client.h"
#include "cli/output.h"
#include "cli/signals.h"
#include "prism/pubsub/v1/pubsub.grpc.pb.h"

namespace prism::cli {
namespace {

using Stream = grpc::ClientReaderWriter<pubsub::v1::SubscribeStreamRequest, pubsub::v1::SubscribeStreamResponse>;

constexpr std::size_t kShownBytes = 1UL << 20;    // a longer payload is only described, unless it goes to a file
constexpr std::chrono::seconds kPartingTime{10};  // for the answers to the last acknowledgements

struct Options {
  ClientOptions client;
  std::string name;
  std::string group = "default";
  std::string output;
  std::string start = "earliest";
  std::uint64_t count = 0;
  double timeout = 0;
};

bool is_text(std::string_view bytes) {
  // nlohmann checks UTF-8 strictly; other control characters would disturb a terminal.
  if (std::any_of(bytes.begin(), bytes.end(), [](char c) {
        return (static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t' && c != '\r') || c == 0x7f;
      })) {
    return false;
  }
  try {
    std::ignore = nlohmann::json(std::string(bytes)).dump();
    return true;
  } catch (const nlohmann::json::exception&) {
    return false;
  }
}

// Ends the stream when the time is over or the user wants it.
class Watch {
 public:
  enum class Why { none, timeout, signal };
  Watch(Signals& signals, grpc::ClientContext& context, std::optional<std::chrono::steady_clock::time_point> until)
      : signals_(signals), thread_([this, &context, until] { run(context, until); }) {}
  ~Watch() {
    over_ = true;
    signals_.wake();
    thread_.join();
  }
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

  Why why() const { return why_; }
  void part() {  // from now on only the parting time is left
    parting_ = true;
    signals_.wake();
  }

 private:
  void run(grpc::ClientContext& context, std::optional<std::chrono::steady_clock::time_point> until) {
    while (true) {
      const auto event = signals_.wait(until);
      if (over_) return;
      if (event == Signals::Event::wake) {
        if (parting_) until = std::chrono::steady_clock::now() + kPartingTime;
        continue;
      }
      why_ = event == Signals::Event::signal ? Why::signal : Why::timeout;
      context.TryCancel();
      return;
    }
  }

  Signals& signals_;
  std::atomic<bool> over_{false}, parting_{false};
  std::atomic<Why> why_{Why::none};
  std::thread thread_;
};

std::string with_reason(std::string_view doing, const std::string& path) {
  return std::string(doing) + " " + path + ": " + std::strerror(errno);
}

// One event as its frames come in.
class Incoming {
 public:
  Incoming(const Options& options, pubsub::v1::Event first) : options_(options), event_(std::move(first)) {}
  ~Incoming() {
    if (file_ >= 0) ::close(file_);
    if (!partial_.empty()) ::unlink(partial_.c_str());
  }
  Incoming(const Incoming&) = delete;
  Incoming& operator=(const Incoming&) = delete;

  const std::string& token() const { return event_.ack_token(); }
  const std::optional<common::v1::Error>& error() const { return error_; }

  Result<void> add(const pubsub::v1::Event& frame) {
    if (frame.has_error()) {
      error_ = frame.error();
      return {};
    }
    const std::string& bytes = frame.payload();
    crc_ = crc32c(crc_, bytes);
    size_ += bytes.size();
    if (!progress_ && frame.has_part()) {
      const auto& part = event_.part();
      progress_.emplace(event_.id(), part.has_total_size() ? std::optional(part.total_size()) : std::nullopt);
    }
    if (progress_) progress_->advance(bytes.size());
    if (frame.has_part() && frame.part().has_crc32c() && frame.part().crc32c() != crc_) {
      return fail(Code::data_loss, "PAYLOAD_CHECKSUM_MISMATCH", "event " + event_.id() + " arrived damaged");
    }
    if (options_.output.empty()) {
      if (size_ <= kShownBytes) shown_ += bytes;
      return {};
    }
    return save(bytes);
  }

  // The payload is whole: it is on disk, or printed, before it is acknowledged.
  Result<void> finish() {
    progress_.reset();
    std::string path;
    if (!options_.output.empty()) {
      if (file_ < 0) PRISM_CHECK(save({}));
      if (::fsync(file_) != 0) return fail(Code::unknown, "FILE_UNWRITABLE", with_reason("syncing", partial_));
      path = (std::filesystem::path(options_.output) / file_name()).string();
      if (::rename(partial_.c_str(), path.c_str()) != 0)
        return fail(Code::unknown, "FILE_UNWRITABLE", with_reason("naming", path));
      partial_.clear();
    }
    options_.client.format == Format::json ? print_json(path) : print_text(path);
    std::fflush(stdout);
    return {};
  }

 private:
  // Ids are the publisher's: nothing in one may lead out of the folder.
  std::string file_name() const {
    std::string name = event_.id();
    for (char& c : name) {
      if (std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '-' && c != '_' && c != '.') c = '_';
    }
    return name.empty() || name.front() == '.' ? "_" + name : name;
  }

  Result<void> save(std::string_view bytes) {
    if (file_ < 0) {
      partial_ = (std::filesystem::path(options_.output) / ("." + file_name() + ".part")).string();
      file_ = ::open(partial_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
      if (file_ < 0)
        return fail(Code::unknown, "FILE_UNWRITABLE", with_reason("creating", std::exchange(partial_, {})));
    }
    while (!bytes.empty()) {
      const ssize_t n = ::write(file_, bytes.data(), bytes.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return fail(Code::unknown, "FILE_UNWRITABLE", with_reason("writing", partial_));
      bytes.remove_prefix(static_cast<std::size_t>(n));
    }
    return {};
  }

  void print_text(const std::string& path) const {
    if (!path.empty()) {
      fmt::print("{}  {}  crc32c {:08x}\n", path, human_bytes(size_), crc_);
    } else if (size_ <= kShownBytes && is_text(shown_)) {
      fmt::print("{}{}", shown_, shown_.ends_with('\n') ? "" : "\n");
    } else {
      fmt::print("<{} of {}, crc32c {:08x}; --output DIR saves it>\n", human_bytes(size_),
                 event_.content_type().empty() ? "bytes" : event_.content_type(), crc_);
    }
  }

  void print_json(const std::string& path) const {
    nlohmann::json metadata = nlohmann::json::object();
    for (const auto& [key, value] : event_.metadata()) metadata[key] = value;
    const auto& at = event_.publish_time();
    nlohmann::json out = {{"id", event_.id()},
                          {"topic", event_.topic()},
                          {"position", event_.position()},
                          {"publish_time", iso_time(WallTime(std::chrono::seconds(at.seconds()) +
                                                             std::chrono::microseconds(at.nanos() / 1000)))},
                          {"attempt", event_.attempt()},
                          {"ordering_key", event_.ordering_key()},
                          {"content_type", event_.content_type()},
                          {"metadata", std::move(metadata)},
                          {"size", size_},
                          {"crc32c", fmt::format("{:08x}", crc_)}};
    if (!path.empty()) {
      out["file"] = path;
    } else if (size_ > kShownBytes) {
      out["payload_omitted"] = true;
    } else if (is_text(shown_)) {
      out["payload"] = shown_;
    } else {
      out["payload_base64"] = base64_encode(shown_);
    }
    fmt::print("{}\n", out.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  }

  const Options& options_;
  pubsub::v1::Event event_;  // the first frame: everything but the later parts
  std::optional<common::v1::Error> error_;
  std::uint32_t crc_ = 0;
  std::uint64_t size_ = 0;
  std::string shown_;
  int file_ = -1;
  std::string partial_;
  std::optional<Progress> progress_;
};

// Receives, prints, acknowledges what was printed.
class Session {
 public:
  // `received`: by earlier streams.
  Session(const Options& options, Stream& stream, Watch& watch, std::uint64_t received)
      : options_(options), stream_(stream), watch_(watch), received_(received) {}

  std::uint64_t received() const { return received_; }

  bool done() const { return options_.count > 0 && received_ >= options_.count; }
  const std::optional<Error>& problem() const { return problem_; }
  bool server_closing() const { return closing_; }

  void run() {
    pubsub::v1::SubscribeStreamResponse frame;
    while (stream_.Read(&frame)) {
      if (frame.has_closing()) closing_ = true;
      if (frame.has_events() && !parting_) {
        take(frame);
        if (done() || problem_) {
          parting_ = true;
          stream_.WritesDone();  // what is unsettled goes to another consumer of the group
          watch_.part();
        }
      }
    }
  }

 private:
  void take(pubsub::v1::SubscribeStreamResponse& frame) {
    pubsub::v1::SubscribeStreamRequest acks, nacks;
    for (auto& event : *frame.mutable_events()->mutable_events()) {
      if (done()) break;
      if (!incoming_) incoming_ = std::make_unique<Incoming>(options_, event);
      if (auto added = incoming_->add(event); !added) {
        problem_ = std::move(added).error();
        break;
      }
      const bool whole = !event.has_part() || event.part().last() || event.has_error();
      if (!whole) continue;
      const auto one = std::move(incoming_);
      if (const auto& error = one->error()) {
        // It stays unread; another attempt may find its payload.
        print_error({static_cast<Code>(error->code()),
                     error->reason(),
                     "event " + event.id() + ": " + error->message(),
                     error->hint(),
                     Retry::never,
                     {},
                     {}},
                    options_.client.format);
        auto* back = nacks.mutable_nack()->add_entries();
        back->set_ack_token(one->token());
        back->mutable_delay()->set_seconds(1);
        back->set_reason(error->reason());
        continue;
      }
      if (auto finished = one->finish(); !finished) {
        problem_ = std::move(finished).error();
        break;
      }
      ++received_;
      acks.mutable_ack()->add_ack_tokens(one->token());
    }
    if (acks.has_ack()) stream_.Write(acks);
    if (nacks.has_nack()) stream_.Write(nacks);
  }

  const Options& options_;
  Stream& stream_;
  Watch& watch_;
  std::unique_ptr<Incoming> incoming_;
  std::uint64_t received_;
  bool parting_ = false;
  bool closing_ = false;
  std::optional<Error> problem_;
};

Exit subscribe(const Options& options) {
  if (!options.output.empty()) {
    std::error_code failed_to;
    std::filesystem::create_directories(options.output, failed_to);
    if (failed_to) {
      print_error({Code::invalid_argument,
                   "FILE_UNWRITABLE",
                   "cannot make the folder " + options.output + ": " + failed_to.message(),
                   {},
                   Retry::never,
                   {},
                   {}},
                  options.client.format);
      return Exit::unusable;
    }
  }
  Signals signals;
  const auto stub = pubsub::v1::PubSubService::NewStub(connect(options.client));
  std::optional<std::chrono::steady_clock::time_point> until;
  if (options.timeout > 0) {
    until =
        std::chrono::steady_clock::now() + std::chrono::milliseconds(static_cast<std::int64_t>(options.timeout * 1000));
  }
  pubsub::v1::SubscribeStreamRequest open;
  open.mutable_open()->set_topic(options.name);
  open.mutable_open()->set_group(options.group);
  open.mutable_open()->set_client_id("prism-cli");
  open.mutable_open()->mutable_start()->set_edge(options.start == "latest" ? pubsub::v1::Start::EDGE_LATEST
                                                                           : pubsub::v1::Start::EDGE_EARLIEST);
  // No more at a time than is wanted: the rest would wait for its redelivery.
  if (options.count > 0)
    open.mutable_open()->set_max_messages(static_cast<std::uint32_t>(std::min<std::uint64_t>(options.count, 1000)));

  for (std::uint64_t received = 0;;) {
    grpc::ClientContext context;
    bind(context, options.client);
    const auto stream = stub->SubscribeStream(&context);
    Watch::Why why = Watch::Why::none;
    std::optional<Error> problem;
    bool done = false, closing = false;
    {
      Watch watch(signals, context, until);
      Session session(options, *stream, watch, received);
      stream->Write(open);
      session.run();
      why = watch.why();
      problem = session.problem();
      done = session.done();
      closing = session.server_closing();
      received = session.received();
    }
    const auto status = stream->Finish();
    if (problem) {
      print_error(*problem, options.client.format);
      return Exit::failed;
    }
    if (done) return Exit::good;
    if (why == Watch::Why::signal) return options.count == 0 ? Exit::good : Exit::failed;
    if (why == Watch::Why::timeout) return options.count == 0 ? Exit::good : Exit::timed_out;
    // The namespace has another configuration: it is subscribed again, and what was not acknowledged comes again.
    if (!status.ok() && to_error(status, options.client).reason == "NAMESPACE_REPLACED") continue;
    if (!status.ok()) return failed(status, options.client);
    print_error({Code::unavailable,
                 closing ? "SHUTTING_DOWN" : "STREAM_ENDED",
                 "the server has ended the subscription",
                 "start it again when the server is back; nothing that was not printed is lost",
                 Retry::safe,
                 {},
                 {}},
                options.client.format);
    return Exit::failed;
  }
}

}  // namespace

void add_subscribe(CLI::App& root, Run& chosen) {
  auto* command = root.add_subcommand("subscribe", "Receive messages as a member of a consumer group");
  auto options = std::make_shared<Options>();
  command->add_option("NAME", options->name, "Namespace or topic")->required()->type_name("");
  command->add_option("--group", options->group, "Consumer group: each gets every message, its members share them")
      ->type_name("GROUP")
      ->default_str("default");
  command->add_option("--count", options->count, "End after so many messages; 0: never")
      ->type_name("N")
      ->default_str("0");
  command->add_option("--timeout", options->timeout, "End after this many seconds; 0: never")
      ->type_name("SECONDS")
      ->default_str("0")
      ->check(CLI::NonNegativeNumber.description(""));
  command
      ->add_option("--start", options->start, "Where a group begins that has not been there before: earliest or latest")
      ->type_name("WHERE")
      ->default_str("earliest")
      ->check(CLI::IsMember({"earliest", "latest"}).description(""));
  command
      ->add_option("--output", options->output, "Save each payload as a file in this folder, named by the message's id")
      ->type_name("DIR");
  add_client_options(*command, options->client);
  command->footer(
      "A message is acknowledged when it has been printed, or saved and synced: one that was not comes again.\n"
      "\n"
      "Examples:\n"
      "  prism subscribe orders --group billing\n"
      "  prism subscribe orders --group audit --format json --count 10 | jq .payload\n"
      "  prism subscribe media --group archive --output received/\n"
      "\n"
      "Exit codes: 0 done; 1 refused or ended by the server; 2 bad arguments; 3 no server;\n"
      "4 the time was over before --count messages came.");
  command->callback([&chosen, options] { chosen = [options] { return subscribe(*options); }; });
}

}  // namespace prism::cli

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/crc32c.h"
#include "cli/client.h"
#include "cli/output.h"
#include "prism/pubsub/v1/pubsub.grpc.pb.h"

namespace prism::cli {
namespace {

constexpr std::size_t kChunkBytes = 512UL << 10;
constexpr std::size_t kUnaryBytes = 1UL << 20;  // a longer text goes as a stream

struct Options {
  ClientOptions client;
  std::string name;
  std::optional<std::string> text;
  std::string file;
  std::string key, id, content_type;
  std::vector<std::string> metadata;
  double timeout = 0;
};

// Where a payload comes from: a file, standard input, or the command line.
class Input {
 public:
  explicit Input(std::string text) : text_(std::move(text)), size_(text_.size()) {}
  explicit Input(int file) : file_(file) {
    struct stat info{};
    if (::fstat(file, &info) == 0 && S_ISREG(info.st_mode)) size_ = static_cast<std::uint64_t>(info.st_size);
  }
  ~Input() {
    if (file_ > STDIN_FILENO) ::close(file_);
  }
  Input(const Input&) = delete;
  Input& operator=(const Input&) = delete;

  std::optional<std::uint64_t> size() const { return size_; }
  // Fills `chunk`; empty at the end.
  Result<void> read(std::string& chunk) {
    chunk.resize(kChunkBytes);
    if (file_ < 0) {
      chunk = text_.substr(std::min(at_, text_.size()), kChunkBytes);
      at_ += chunk.size();
      return {};
    }
    std::size_t filled = 0;
    while (filled < chunk.size()) {
      const ssize_t n = ::read(file_, chunk.data() + filled, chunk.size() - filled);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0)
        return fail(Code::unknown, "FILE_UNREADABLE",
                    std::string("reading the payload failed: ") + std::strerror(errno));
      if (n == 0) break;
      filled += static_cast<std::size_t>(n);
    }
    chunk.resize(filled);
    return {};
  }

 private:
  int file_ = -1;
  std::string text_;
  std::size_t at_ = 0;
  std::optional<std::uint64_t> size_;
};

// Shared by PublishRequest and PayloadHeader.
template <class Header>
Result<void> fill(Header& header, const Options& options) {
  header.set_topic(options.name);
  header.set_message_id(options.id);
  header.set_ordering_key(options.key);
  header.set_content_type(options.content_type);
  for (const auto& pair : options.metadata) {
    const auto equals = pair.find('=');
    if (equals == std::string::npos || equals == 0) {
      return fail(Code::invalid_argument, "METADATA_MALFORMED", "--metadata " + pair + " is no KEY=VALUE");
    }
    (*header.mutable_metadata())[pair.substr(0, equals)] = pair.substr(equals + 1);
  }
  return {};
}

void report(const Options& options, const pubsub::v1::PublishResponse& response, std::uint64_t bytes,
            std::chrono::steady_clock::duration took) {
  static constexpr std::array<std::string_view, 5> kDurability{"unknown", "memory", "os", "fsync", "replicated"};
  const auto level = static_cast<std::size_t>(response.durability());
  const auto durability = level < kDurability.size() ? kDurability[level] : kDurability.front();
  if (options.client.format == Format::json) {
    fmt::print("{}\n", nlohmann::json{{"id", response.id()},
                                      {"topic", response.topic()},
                                      {"position", response.position()},
                                      {"durability", durability},
                                      {"duplicate", response.duplicate()},
                                      {"bytes", bytes},
                                      {"seconds", std::chrono::duration<double>(took).count()}}
                           .dump());
  } else {
    fmt::print("published {} to {} as {} in {} (durability: {}){}\n", human_bytes(bytes), response.topic(),
               response.id(), human_time(took), durability, response.duplicate() ? "; it was there already" : "");
  }
}

void set_deadline(grpc::ClientContext& context, const Options& options) {
  if (options.timeout > 0) {
    context.set_deadline(std::chrono::system_clock::now() +
                         std::chrono::milliseconds(static_cast<std::int64_t>(options.timeout * 1000)));
  }
}

Exit publish_text(const Options& options) {
  const auto begun = std::chrono::steady_clock::now();
  pubsub::v1::PublishRequest request;
  if (auto filled = fill(request, options); !filled) {
    print_error(filled.error(), options.client.format);
    return Exit::unusable;
  }
  request.set_payload(*options.text);
  const auto stub = pubsub::v1::PubSubService::NewStub(connect(options.client));
  grpc::ClientContext context;
  bind(context, options.client);
  set_deadline(context, options);
  pubsub::v1::PublishResponse response;
  const auto status = stub->Publish(&context, request, &response);
  if (!status.ok()) return failed(status, options.client);
  report(options, response, options.text->size(), std::chrono::steady_clock::now() - begun);
  return Exit::good;
}

Exit publish_stream(const Options& options, Input& input) {
  const auto begun = std::chrono::steady_clock::now();
  pubsub::v1::PublishPayloadRequest frame;
  if (auto filled = fill(*frame.mutable_header(), options); !filled) {
    print_error(filled.error(), options.client.format);
    return Exit::unusable;
  }
  if (input.size()) frame.mutable_header()->set_size(*input.size());

  const auto stub = pubsub::v1::PubSubService::NewStub(connect(options.client));
  grpc::ClientContext context;
  bind(context, options.client);
  set_deadline(context, options);
  pubsub::v1::PublishResponse response;
  const auto stream = stub->PublishPayload(&context, &response);
  std::uint32_t crc = 0;
  std::uint64_t sent = 0;
  bool open = stream->Write(frame);
  {
    Progress progress(options.file.empty() || options.file == "-" ? options.name : options.file, input.size());
    while (open) {
      std::string* chunk = frame.mutable_chunk();
      if (auto read = input.read(*chunk); !read) {
        context.TryCancel();
        stream->Finish();
        print_error(read.error(), options.client.format);
        return Exit::unusable;
      }
      if (chunk->empty()) break;
      crc = crc32c(crc, *chunk);
      sent += chunk->size();
      open = stream->Write(frame);
      progress.advance(frame.chunk().size());
    }
  }
  if (open) {
    frame.mutable_trailer()->set_crc32c(crc);
    frame.mutable_trailer()->set_size(sent);
    stream->WriteLast(frame, grpc::WriteOptions());
  }
  const auto status = stream->Finish();  // also says why a write failed
  if (!status.ok()) return failed(status, options.client);
  report(options, response, sent, std::chrono::steady_clock::now() - begun);
  return Exit::good;
}

Exit publish(const Options& options) {
  if (options.text && !options.file.empty()) {
    print_error({Code::invalid_argument,
                 "PAYLOAD_GIVEN_TWICE",
                 "give either TEXT or --file, not both",
                 {},
                 Retry::never,
                 {},
                 {}},
                options.client.format);
    return Exit::unusable;
  }
  if (options.text && options.text->size() <= kUnaryBytes) return publish_text(options);
  if (options.text) {
    Input input(*options.text);
    return publish_stream(options, input);
  }
  int file = STDIN_FILENO;
  if (!options.file.empty() && options.file != "-") {
    file = ::open(options.file.c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0) {
      print_error({Code::not_found,
                   "FILE_UNREADABLE",
                   "cannot open " + options.file + ": " + std::strerror(errno),
                   {},
                   Retry::never,
                   {},
                   {}},
                  options.client.format);
      return Exit::unusable;
    }
  } else if (options.file.empty() && ::isatty(STDIN_FILENO) == 1) {
    print_error({Code::invalid_argument,
                 "PAYLOAD_MISSING",
                 "there is nothing to publish",
                 "give a text, --file FILE, or pipe something in",
                 Retry::never,
                 {},
                 {}},
                options.client.format);
    return Exit::unusable;
  }
  Input input(file);
  return publish_stream(options, input);
}

}  // namespace

void add_publish(CLI::App& root, Run& chosen) {
  auto* command = root.add_subcommand("publish", "Publish a text or a file of any size");
  auto options = std::make_shared<Options>();
  command->add_option("NAME", options->name, "Namespace or topic")->required()->type_name("");
  command->add_option("TEXT", options->text, "The payload; without it --file or standard input is read")->type_name("");
  command->add_option("--file", options->file, "Publish a file, streamed; - is standard input")->type_name("FILE");
  command->add_option("--key", options->key, "Ordering key: messages of one key arrive in order")->type_name("KEY");
  command->add_option("--metadata", options->metadata, "Name and value that arrive with the message; may be repeated")
      ->type_name("NAME=VALUE")
      ->take_all()
      ->expected(1)
      ->allow_extra_args(false);
  command->add_option("--id", options->id, "Message id: repeating a publish with the same id is harmless")
      ->type_name("ID");
  command->add_option("--content-type", options->content_type, "Media type, kept with the message")->type_name("TYPE");
  command->add_option("--timeout", options->timeout, "Give up after this many seconds; 0: never")
      ->type_name("SECONDS")
      ->default_str("0")
      ->check(CLI::NonNegativeNumber.description(""));
  add_client_options(*command, options->client);
  command->footer(
      "Examples:\n"
      "  prism publish orders '{\"order\": 17}' --key customer-3 --content-type application/json\n"
      "  prism publish media --file video.mp4 --metadata title=Holidays\n"
      "  pg_dump shop | prism publish backups --file -\n"
      "\n"
      "Exit codes: 0 published; 1 refused; 2 bad arguments or file; 3 no server; 4 timed out.");
  command->callback([&chosen, options] { chosen = [options] { return publish(*options); }; });
}

}  // namespace prism::cli

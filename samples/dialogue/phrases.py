"""What the sample's philosopher and those whom he asks may say: few phrases, which a small model can learn.

A phrase names the topic {t}, what the user said of it {q}, and the user's trade {p}.
"""

from samples import words

TOPICS = ("勇気", "知恵", "友情", "正義", "幸せ", "自由", "徳", "美しさ", "誠実さ", "節度")
PEOPLE = ("漁師", "医者", "大工", "教師", "商人", "兵士", "詩人", "農夫", "料理人", "船乗り", "学生", "職人")
QUALITIES = words("""
人を助ける 恐れを知る 多くを学ぶ 約束を守る 欲を抑える 真実を語る 友を思う よく働く 自分を知る 静かに待つ 等しく分ける
心を静める 家を守る 先を読む
""")

OPENINGS = ("{t}とは何だと思いますか。", "あなたにとって、{t}とは何ですか。", "{p}さん、{t}について教えてください。")
USER = (
    "{t}とは、{q}ことだと思います。",
    "{p}の私には、{t}は{q}ことです。",
    "それは{q}ことでしょうか。",
    "{t}は、{q}ことかもしれません。",
    "やはり、{q}ことに尽きます。",
)
ASSISTANT = (
    "では、{q}人はみな{t}を持つのですか。",
    "{q}ことが、害になる時はありませんか。",
    "{p}でない人も、{q}べきでしょうか。",
    "{q}とは、どういうことですか。私は知らないのです。",
    "{q}ことと{t}は、同じものですか。",
    "{q}ことを、あなたは誰から学びましたか。",
)
# What no philosopher would say: a clerk's phrases, a stutter, an answer that gives no question back.
BROKEN = (
    "お支払いは明日までにお願いします。",
    "はいはいはいはいはいはいはい",
    "{q}{q}{q}{q}",
    "ご注文は三点ですね。",
    "わかりません。おわり。",
)

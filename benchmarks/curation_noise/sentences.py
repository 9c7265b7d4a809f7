"""Sentences of the sample's clean rows, with places for words, and the questions that ask for them."""

from samples import lines

# {thing} is what the row is about; every other place is drawn anew.
SENTENCES = lines("""
{thing}は、{place}でも{quality}ものとして知られています。
{when}に{thing}を訪ねると、{quality}一面に気づくことがあります。
まず、{deed}前に{caution}を確かめておくと安心です。
{surname}さんによれば、{thing}が好まれるのは{reason}からです。
{place}の{other}と比べると、{thing}のほうが{quality}印象を与えます。
{number}年ほど前までは、{thing}を{deed}人は多くありませんでした。
ただし、{caution}には十分に気をつけてください。
初めての場合は、{deed}ことから始めるとよいでしょう。
最近では{other}と組み合わせて{deed}例も増えています。
{reason}という点も、見逃せない利点です。
一方で、{caution}の問題が残っているという意見もあります。
{place}では毎年{number}件を超える相談が寄せられています。
専門家の{surname}氏は、{thing}と{other}の違いを{quality}言葉で説明しました。
結局のところ、{deed}かどうかは{caution}しだいです。
{when}には{number}人以上が集まり、{other}について話し合いました。
必要なものは、{other}と{quality}道具が{small}つだけです。
手順を{small}つに分けると、{deed}ときに迷いません。
たとえば{place}の{surname}さんは、{when}に{deed}習慣を続けています。
地元の人々は{thing}を{quality}財産だと考え、大事に{deed}のです。
調査では、回答者の{percent}%が{thing}に関心があると答えました。
{other}がなければ、{thing}はこれほど広まらなかったでしょう。
{quality}雰囲気を保つために、{caution}の決まりが設けられています。
もし{caution}が心配なら、{when}を避けて{deed}方法もあります。
子どもたちは{other}を通して、{thing}の歴史に触れることができます。
値段は{number}円前後で、{reason}ことが選ばれる理由になっています。
{surname}さんと{surname2}さんは、{place}で{thing}を{deed}会を開きました。
記録を見ると、{thing}の数はこの{small}年で{percent}%ほど変わりました。
{deed}ときは、{other}の専門書を{small}冊ほど読むと理解が深まります。
この話は{place}に限らず、{other}にも当てはまります。
最後に、{reason}ことを忘れずに楽しんでください。
古い記録には、{place}で{uncommon}が売られていたと書かれています。
{thing}のそばでは、{uncommon}を見かけることもあるそうです。
英語の「{english}」に近い意味で使われる場合もあります。
{quality}{thing}ほど、{deed}人の腕前が試されるものはありません。
{when}になると、{place}の空気まで{quality}ものに感じられます。
{caution}さえ守れば、年齢を問わず{deed}ことができます。
""")
QUESTIONS = lines("""
{thing}について{number}字程度で説明してください。
{thing}の魅力を、{other}と比べながら教えてください。
{place}で{thing}を楽しむときの注意点は何ですか。
{when}に{thing}を{deed}計画を立ててください。
{thing}がなぜ{quality}ものと言われるのか、理由を述べてください。
{surname}さんに{thing}をすすめる短い文章を書いてください。
初心者が{thing}を始めるには、どうすればよいでしょうか。
{thing}と{other}の違いは何でしょう。
{place}の{thing}に関する紹介文を作ってください。
{thing}を{deed}方法を、順を追って教えてほしいです。
{quality}{thing}を見分けるこつはありますか。
小学生にも分かるように、{thing}の役割を説明してください。
{thing}の歴史を簡単にまとめてください。
{thing}をめぐる最近の課題を挙げてください。
次の発表で{thing}を取り上げます。話の流れを考えてください。
""")
STORIES = lines("""
{place}の町に、{surname}{given}という{quality}子どもが住んでいました。
ある日、{given}は{thing}の前で{quality}猫に出会います。
「{when}になったら、一緒に{other}を探しに行こう」と猫は言いました。
二人は{small}つの坂を越え、{uncommon}の香りがする庭にたどり着きます。
そこでは{surname2}という老人が、黙って{thing}を磨いていました。
老人は{number}年前の約束を、まだ覚えていたのです。
{given}は{other}を差し出し、どうか{deed}ことを許してほしいと頼みました。
空が暗くなると、{place2}から来た旅人が火をおこしてくれました。
「{reason}のだから、急ぐことはないよ」と旅人は笑います。
翌朝、{given}の手には{quality}{other}が残っていました。
それから{given}は、{when}が来るたびに{thing}を訪ねるようになりました。
""")

LETTERS = """\
{surname}様

いつもお世話になっております。{place}支店の{surname2}です。
{when}に予定しております{thing}の件で、ご連絡いたしました。
{caution}の都合により、開始を{small}時に改めたく存じます。
{number}円の費用につきましては、{other}の担当者が改めてご説明します。
どうぞよろしくお願いいたします。
----
{surname}さんへ

先日は{place}まで来てくれてありがとう。
{thing}の話がとても面白かったので、{other}の本を{small}冊買いました。
次は{when}に会えるとうれしいです。{caution}だけ気をつけてね。
{surname2}より
----
各位

{thing}の見学会を{place}で開きます。定員は{number}名です。
{when}に集合し、{small}班に分かれて{other}を見て回ります。
{caution}のため、申し込みは早めにお願いします。
担当：{surname}
""".rstrip().split("\n----\n")
